//! The server as clients see it, over real sockets.

mod auth;
