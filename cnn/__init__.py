"""Folders of images in, a trained and evaluated CNN classifier out."""
