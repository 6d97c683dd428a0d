"""The models whose training steps are timed, how many operations a step has, and its matrix products."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Preset:
    """A decoder-only transformer with biases, GELU, learned positions and a tied head, and the batch it learns from."""

    name: str
    layers: int
    heads: int
    width: int
    context: int
    batch: int
    vocabulary: int = 256  # bytes

    @property
    def tokens(self):
        return self.batch * self.context

    def parameters(self):
        """Of embedding, positions, blocks (four (C, C) matrices, two of four times that, biases, two norms), norm."""
        c = self.width
        block = 4 * (c * c + c) + (4 * c * c + 4 * c) + (4 * c * c + c) + 2 * 2 * c
        return self.vocabulary * c + self.context * c + self.layers * block + 2 * c

    def operations(self):
        """Of a step: six for each parameter and token (two forward, four backward; Kaplan et al., 2020, "Scaling Laws
        for Neural Language Models", section 2.1), and twelve for each pair of a query and a key that it sees and each
        element of these (two products forward, four backward)."""
        pairs = self.context * (self.context + 1) // 2
        return 6 * self.parameters() * self.tokens + 12 * self.layers * self.batch * pairs * self.width

    def products(self):
        """The products of its linear layers: (pass, m, n, k) -> the names of the layers."""
        c = self.width
        found = {}
        for layer, out, into in (("q, k, v, output", c, c), ("up", 4 * c, c), ("down", c, 4 * c),
                                 ("head", self.vocabulary, c)):
            for key in (("forward", self.tokens, out, into), ("dx", self.tokens, into, out),
                        ("dw", out, into, self.tokens)):
                found.setdefault(key, []).append(layer)
        return found


PRESETS = {preset.name: preset for preset in (
    Preset("toy", layers=2, heads=2, width=48, context=16, batch=32),
    Preset("char", layers=4, heads=4, width=128, context=64, batch=12),
    Preset("small", layers=6, heads=6, width=384, context=256, batch=8),
    Preset("long", layers=4, heads=8, width=512, context=2048, batch=1),
    Preset("gpt2", layers=12, heads=12, width=768, context=64, batch=4, vocabulary=50257))}


def add_preset_option(parser):
    parser.add_argument("presets", nargs="*", metavar="PRESET", default=list(PRESETS),
                        help=f"of {', '.join(PRESETS)} (default: all)")


def chosen(parser, names):
    """The presets of these names, or the end of the program."""
    for name in names:
        if name not in PRESETS:
            parser.error(f"there is no preset `{name}`, but {', '.join(PRESETS)}")
    return [PRESETS[name] for name in dict.fromkeys(names)]
