"""What can be wrong with a site's or a server's machine, found before it is in the way of a run (`qfed doctor`)."""
