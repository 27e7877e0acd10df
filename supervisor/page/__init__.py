"""The status page.  `index.html` contains its frame, style and script; the modules render the content.  Pure."""
