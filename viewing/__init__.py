"""A fit to look at in a browser: served, or written as a site or a page."""
