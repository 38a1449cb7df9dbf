"""The workbench in the browser: from a folder of photographs to a classifier in use, by looking and clicking.

    app         puts the pages together (`create_studio`)
    workbench   what every page needs: where data may lie, the jobs, what is known of them
    folders     what may be chosen: folders below the allowed root
    collections data sets that were opened: what they are called and where they lie
    uploads     photographs and zips that a browser sent
    work        what a job does: checking, planning, training, comparing, exporting
    listing     the runs that are shown, a page at a time
    servings    classifiers that serve predictions, in processes of their own
    pictures    small pictures for pages, made anew
    pages       templates and the words in them
    start       the first page; choosing and sending photographs
    looking     the data report with the pictures behind each finding
    planning    what each choice would cost; starting a training or a comparison
    watching    a job, live
    results     runs, their reports, and comparing them
    noted       what a run noted of its images, and what was put right since
    trying      an image to classify, why, and what it resembles
    correcting  labels put right, and new images labelled, the most useful first
    delivering  exports, and serving
    server      listens, and opens the browser

This package imports nothing by itself.
"""
