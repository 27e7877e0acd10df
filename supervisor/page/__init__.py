"""The operators' page: `index.html` holds its frame, style and script, the modules here what changes.  Pure."""
