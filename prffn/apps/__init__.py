"""What people use beside the study: photographs upscaled, the quickstart's widgets, the networks of the package."""
