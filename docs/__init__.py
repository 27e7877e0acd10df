"""The documentation: pages in Markdown, and what is generated from the code for them."""
