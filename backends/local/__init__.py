"""Diffusers' `ZImagePipeline` on this machine. Importing this package doesn't import torch."""
