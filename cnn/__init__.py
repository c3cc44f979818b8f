"""Folders of images in, a trained and judged CNN classifier out."""
