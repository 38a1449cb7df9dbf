"""What the applications in the browser share, and the HTTP front of all three servers.

    front       whom a server answers, its bounds in bytes and seconds, and its end
    addresses   where a server listens, and under which names it answers
    site        what every application needs to be served
    security    session cookie, CSRF tokens, access token, size of forms, response headers
    app         puts an application of pages together; templates, error pages
    server      listens, and opens the browser
    jobs        the queue, on disk, of whatever takes longer than a page
    events      server-sent events
    recent      what one page makes and others show for a while
    plots       plots as data and as SVG

This package imports nothing by itself.
"""
