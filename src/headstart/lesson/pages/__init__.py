"""The lesson in the browser: pages that work without JavaScript and without a network.

    app         puts the pages together (`create_app`)
    site        what every page needs: the lesson, the store, the clock, the experiments (`LessonSite`)
    server      listens, and opens the browser
    rendering   templates, and Markdown with measured numbers in it

    home        the first page and the modes that are read
    challenges  problems: opened, answered, explained; the badge
    flashcards  review cards
    tasks       hands-on tasks and the project
    experiments experiments: run one at a time, watched live
    tour        one picture followed through the stages
    runs        the learner's own runs: chosen, judged, beside a twin from scratch
    catalogue   what is known of experiments
    preview     a pack while it is being written, shown anew at every save

This package imports nothing by itself.
"""
