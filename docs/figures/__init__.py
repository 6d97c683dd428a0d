"""The figures of flash_attention.md and of the book, a module for each subject."""
