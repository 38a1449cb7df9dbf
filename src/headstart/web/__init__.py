"""The lesson in the browser: a local server whose pages work without JavaScript and without a network.

    app         puts the pages together (`create_app`)
    site        what every page needs: the lesson, the store, the clock, the experiments
    security    session cookie, CSRF tokens, Host check, access token, response headers
    rendering   templates, and Markdown with measured numbers in it
    home        the first page and the modes that are read
    challenges  problems: opened, answered, explained; the badge
    revision    review cards
    tasks       hands-on tasks and the project
    laboratory  experiments: run one at a time, watched live
    journey     one picture followed through the stages
    stored      the learner's own runs: chosen, judged, beside a twin from scratch
    drawing     plots as SVG
    server      listens, and opens the browser
    preview     a pack while it is being written, shown anew at every save
    evidence    what is known of experiments
    jobs        the queue, on disk, of whatever takes longer than a page

This package imports nothing by itself.
"""
