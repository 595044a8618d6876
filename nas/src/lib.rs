//! Supernet spaces, training and search.
