"""What changed between two dates: from what to what, where, how much, how surely.

In the order in which a pair goes through:

    frames          the one frame on which both dates are looked at
    pair            the two of them, read together
    registration    how far they are apart
    moments, irmad  what the whole pair tells: invariant pixels, the radiometry of one date in terms of the other
    indices         spectral indices
    transitions     what the codes of changes mean
    tolerance       what a shift that is left could explain
    methods         how two dates are compared, pixel by pixel
    threshold       where change begins
    sieve           patches that are large enough
"""
