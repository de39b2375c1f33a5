//! Takes requests from clients: a dialect decides, the queue holds, the client is answered.
