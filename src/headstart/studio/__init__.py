"""The studio in the browser: from a folder of photographs to a classifier in use.

    app         puts the pages together (`create_studio`)
    state       what every page needs: where data may lie, the jobs, what is known of them (`Studio`)
    server      listens, and opens the browser
    rendering   templates and the words in them
    pictures    small pictures for pages, made anew

    home        the first page; choosing and sending photographs
    data        the data report with the pictures behind each finding
    findings    what a check found, in words
    groups      photographs without labels, grouped by likeness and named
    plan        what each choice would cost; starting a training or a comparison
    jobs        a job, live
    runs        runs, their reports, and comparing them
    predict     an image to classify, why, and what it resembles
    labels      labels corrected, and new images labelled, the most useful first
    learning_amounts  whether more photographs would help
    export      exports, and serving

    folders     what may be chosen: folders below the allowed root
    collections data sets that were opened: what they are called and where they lie
    workers     what a job does: checking, planning, training, comparing
    run_list    the runs that are shown, a page at a time
    run_names   what people call runs, pins, and retrained runs folded under the first
    servings    classifiers that serve predictions, in processes of their own

This package imports nothing by itself.
"""
