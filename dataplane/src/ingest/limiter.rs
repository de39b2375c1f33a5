//! How fast one upstream may be asked: requests in flight and requests per second, from what it answers.
