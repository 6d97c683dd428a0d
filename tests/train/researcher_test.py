#!/usr/bin/env python3
"""Plays a researcher: a grid of two settings and several seeds, interrupted and resumed, then a report, its
CSV read by Python's csv, and its event files read by a parser of their framing. Where pandas and TensorBoard are
installed, they read them too.

usage: researcher_test.py TILEGRAD [--full]

As a test the models are tiny and two seeds are enough; --full learns recall with three.
"""

import csv
import importlib.util
import io
import json
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time

SHORT = ["--length", "16", "--layers", "1", "--heads", "2", "--width", "16", "--batch", "4", "--steps", "60",
         "--eval-every", "30", "--save-every", "10"]
FULL = ["--steps", "600"]


def check(condition, message):
    if not condition:
        sys.exit(f"researcher_test: FAILED: {message}")


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=3000)
    check(done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def interrupt(command, folder):
    """Runs the command until its first run has saved, and then sends Ctrl-C."""
    # What runs in the background has inherited that Ctrl-C is ignored, and would pass that on.
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while process.poll() is None and not list(folder.glob("*/state.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    check(process.returncode in (0, 130), f"an interrupt ended the grid with {process.returncode}")
    return process.returncode == 130


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


# --- event files: TFRecord frames around protocol buffers -------------------------------------------------

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    place = 0
    while place < len(data):
        length, length_crc = struct.unpack_from("<QI", data, place)
        check(length_crc == masked(data[place:place + 8]), "the checksum of a length is wrong")
        record = data[place + 12:place + 12 + length]
        (crc,) = struct.unpack_from("<I", data, place + 12 + length)
        check(crc == masked(record), "the checksum of a record is wrong")
        yield record
        place += 16 + length


def fields(message):
    """(number, value) of every field: an int, a float, or bytes."""
    stream = io.BytesIO(message)

    def varint():
        value, shift = 0, 0
        while True:
            byte = stream.read(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while stream.tell() < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, varint()
        elif kind == 1:
            yield number, struct.unpack("<d", stream.read(8))[0]
        elif kind == 5:
            yield number, struct.unpack("<f", stream.read(4))[0]
        else:
            yield number, stream.read(varint())


def scalars(folder, tag):
    """{step: value} of one curve, over the event files of a folder in the order of their names."""
    curve = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        first, *rest = records(file.read_bytes())
        check((3, b"brain.Event:2") in fields(first), f"{file} does not begin with its version")
        for record in rest:
            event = dict(fields(record))
            if 7 in event:  # a session begins: what other files have from here on is forgotten
                curve = {step: value for step, value in curve.items() if step < event[2]}
            for _, value in fields(event.get(5, b"")):
                entry = dict(fields(value))
                if entry[1] == tag.encode():
                    curve[event[2]] = entry[2]
    return curve


def check_events(folder, run_folder):
    wanted = losses(run_folder)
    found = scalars(folder, "train/loss")
    check(list(found) == list(range(1, len(wanted) + 1)), f"{folder}: steps are {list(found)}")
    for step, loss in enumerate(wanted, 1):
        check(abs(found[step] - loss) <= 1e-6 * max(1, abs(loss)), f"{folder}: loss {found[step]} at step {step}, not {loss}")
    check(len(scalars(folder, "validation/loss")) > 0, f"{folder}: no validation loss")


# --- what researchers read them with ---------------------------------------------------------------------

def installed(name):
    return importlib.util.find_spec(name) is not None


def check_pandas(file, rows):
    import pandas
    frame = pandas.read_csv(file)
    wanted = [row["val_loss"] for row in rows]
    check(len(frame) == len(rows), f"pandas reads {frame}")
    check(all(abs(read - loss) <= 1e-9 for read, loss in zip(frame["val_loss"], wanted)), f"pandas reads {frame}")
    losses = frame.groupby("group")["val_loss"].agg(["mean", "std", "count"])
    check(set(losses["count"]) == {len(rows) // 2}, f"pandas groups {losses}")
    print(losses.to_string())


def check_tensorboard(folder, run_folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder))
    events.Reload()
    wanted = losses(run_folder)
    found = events.Scalars("train/loss")
    check([event.step for event in found] == list(range(1, len(wanted) + 1)), f"TensorBoard reads {len(found)} steps")
    far = [event for event, loss in zip(found, wanted) if abs(event.value - loss) > 1e-6 * max(1, abs(loss))]
    check(not far, f"TensorBoard reads {far}")


# --- the researcher -------------------------------------------------------------------------------------

def main():
    tilegrad = sys.argv[1]
    full = "--full" in sys.argv[2:]
    seeds = ["1", "2", "3"] if full else ["1", "2"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        grid = folder / "grid"
        compare = [tilegrad, "compare", "--task", "recall", *(FULL if full else SHORT), "--vary", "positions=learned,rope",
                   "--seeds", ",".join(seeds), "--jobs", "2", "--out", grid]
        stopped = interrupt(compare, grid)
        output = run(*compare)
        names = [f"positions={p},seed={s}" for p in ("learned", "rope") for s in seeds]
        check(all(name in output for name in names), f"the table is {output}")
        print(output if full else f"interrupted: {stopped}")

        # A run of the grid is the run that nobody interrupted, bit for bit.
        alone = folder / "alone"
        run(tilegrad, "train", "--repeat", grid / names[0], "--out", alone, "--quiet", "--tensorboard")
        check(losses(alone) == losses(grid / names[0]), "a run of the grid is not the run alone")
        weights = [(place / "model.safetensors").read_bytes() for place in (alone, grid / names[0])]
        check(weights[0] == weights[1], "weights of the grid are not those of the run alone")

        # Doing it again trains nothing and loses nothing; with one more seed only that one is trained.
        before = {name: (grid / name / "state.safetensors").stat().st_mtime_ns for name in names}
        run(*compare)
        run(*[word if word != ",".join(seeds) else word + ",9" for word in compare])
        after = {name: (grid / name / "state.safetensors").stat().st_mtime_ns for name in names}
        check(before == after, "finished runs were trained again")
        check(len(losses(grid / "positions=rope,seed=9")) == len(losses(alone)), "the new seed was not trained")

        run(tilegrad, "report", grid, "--out", folder / "report.html", "--csv", folder / "runs.csv", "--json",
            folder / "runs.json", "--curves", folder / "curves.csv", "--svg", folder / "svg", "--tensorboard",
            folder / "events")
        with open(folder / "runs.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        numbers = json.loads((folder / "runs.json").read_text())
        check([row["variant"] for row in rows] == [row["variant"] for row in numbers], "CSV and JSON differ")
        check({row["group"] for row in rows} == {"positions=learned", "positions=rope"}, f"groups of {rows}")
        if installed("pandas"):
            check_pandas(folder / "runs.csv", numbers)
        for row, number in zip(rows, numbers):
            check(float(row["val_loss"]) == number["val_loss"], "CSV has fewer digits than JSON")
        with open(folder / "curves.csv", newline="") as file:
            curves = list(csv.DictReader(file))
        check([float(line[names[0]]) for line in curves] == losses(alone), "curves.csv is not the curve of the run")
        check(len(list(csv.reader(open(alone / "curves.csv")))) == len(losses(alone)) + 1, "curves.csv of a single run")
        check((folder / "svg" / "training_loss.svg").read_text().startswith("<svg"), "no picture")

        check_events(alone / "tensorboard", alone)
        for name in names:
            check_events(folder / "events" / name, grid / name)
        if installed("tensorboard"):
            check_tensorboard(alone / "tensorboard", alone)
            for name in names:
                check_tensorboard(folder / "events" / name, grid / name)
    missing = [name for name in ("pandas", "tensorboard") if not installed(name)]
    print("researcher_test: ok" + "".join(f"; {name} is not installed and read nothing" for name in missing))


if __name__ == "__main__":
    main()
