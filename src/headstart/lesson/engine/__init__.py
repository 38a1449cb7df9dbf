"""The engine of a lesson: packs, problems and their grading, attempts, badges, the review schedule, progress.

The engine has no page and no prompt of its own; `headstart.web` and `headstart.cli` are its two faces.
Import the module you need; this package imports nothing by itself, so a lesson starts at once.

    pack          what a lesson is made of: modes, problems, cards, tasks
    sources       a pack's YAML and Markdown, with line numbers
    packlint      reads a pack and names every breach of its rules
    pack_loading  finds, loads and starts packs
    placeholders  `{{ experiment:name.field }}`: where a measured number will stand
    answers       one option, several, an order, pairs, a number: what is offered, given and right
    attempts      the challenge as a function of (state, event, now)
    scores        points, streaks and item statistics, from the log
    badges        Open Badges 3.0 credentials, signed and verified
    badge_images  the badge as PNG and SVG, with the credential baked in
    review        when to see a card again (FSRS)
    progress      the append-only log in a database
    classes       who learns together, by which name, and what their teacher has decided
    classroom     who of a class is where now, and what they answered
    rosters       the names of a class, one a line or CSV
    results       what an experiment leaves behind, as plain values
    interchange   question files of other systems into packs
    moodle, gift  problems to and from Moodle XML and GIFT
    statements    the log as xAPI
    terminal      the challenge without a browser
"""
