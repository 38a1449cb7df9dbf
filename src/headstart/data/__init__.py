"""Data: where images come from, what they are labelled, which side of a split they are on, what is wrong.

    sources     files, zips, tars and Parquet files; what a folder or archive holds
    images      bytes become an oriented RGB picture, a picture becomes pixels
    preprocess  what a backbone wants to see
    dataset     folders, tables, archives and arrays become labelled images
    duplicates  which pictures are one and the same
    splits      training, validation or test, and what stays together
    checks      what is wrong with a data set, before anything is trained on it

Each is imported by its own name; importing this package alone costs nothing.
"""
