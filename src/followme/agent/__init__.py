"""``followme agent``: a site's tunnel router and its machines, as one daemon on the site's router."""
