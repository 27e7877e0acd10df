"""The operators' page: `index.html` holds the frame, style and script; the modules render the changing parts.  Pure."""
