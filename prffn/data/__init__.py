"""Images: sets, patches, degradation, download."""
