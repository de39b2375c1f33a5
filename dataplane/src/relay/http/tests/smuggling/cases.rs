//! The table of requests that have to be refused.

/// Name, status, headers and body of a POST to `/i`.
pub(super) const POSTS: &[(&str, u16, &str, &str)] = &[
    (
        "length and coding",
        400,
        "Content-Length: 23\r\nTransfer-Encoding: chunked\r\n",
        "17\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "coding and length",
        400,
        "Transfer-Encoding: chunked\r\nContent-Length: 23\r\n",
        "17\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        400,
        "Content-Length: 23\r\nContent-Length: 5\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "two equal lengths",
        400,
        "Content-Length: 23\r\nContent-Length: 23\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "lengths in a list",
        400,
        "Content-Length: 23, 23\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length with plus",
        400,
        "Content-Length: +23\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length with minus",
        400,
        "Content-Length: -1\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length with space",
        400,
        "Content-Length: 2 3\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length in hex",
        400,
        "Content-Length: 0x17\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length with underscore",
        400,
        "Content-Length: 2_3\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "empty length",
        400,
        "Content-Length: \r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length overflow",
        400,
        "Content-Length: 18446744073709551639\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "length beyond the limit",
        413,
        "Content-Length: 18446744073709551615\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "space before colon",
        400,
        "Content-Length : 23\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "tab before colon",
        400,
        "Transfer-Encoding\t: chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "folded header",
        400,
        "X-A: b\r\n Content-Length: 23\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "folded coding",
        400,
        "Transfer-Encoding:\r\n chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "other coding",
        400,
        "Transfer-Encoding: gzip\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "identity",
        400,
        "Transfer-Encoding: identity\r\n",
        "app_key=abc&device_id=d",
    ),
    (
        "coding in a coding",
        501,
        "Transfer-Encoding: gzip, chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "chunked is not last",
        400,
        "Transfer-Encoding: chunked, gzip\r\n",
        "0\r\n\r\n",
    ),
    (
        "chunked twice",
        400,
        "Transfer-Encoding: chunked, chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "two codings",
        400,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "almost chunked",
        400,
        "Transfer-Encoding: xchunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "chunked with control",
        400,
        "Transfer-Encoding: \x0bchunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "quoted chunked",
        400,
        "Transfer-Encoding: \"chunked\"\r\n",
        "0\r\n\r\n",
    ),
    (
        "chunk size overflow",
        400,
        "Transfer-Encoding: chunked\r\n",
        "10000000000000017\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "chunk size garbage",
        400,
        "Transfer-Encoding: chunked\r\n",
        "17x\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "chunk size with sign",
        400,
        "Transfer-Encoding: chunked\r\n",
        "+17\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "chunk size with 0x",
        400,
        "Transfer-Encoding: chunked\r\n",
        "0x17\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "chunk ends with line feed",
        400,
        "Transfer-Encoding: chunked\r\n",
        "17\napp_key=abc&device_id=d\n0\n\n",
    ),
    (
        "chunk longer than its size",
        400,
        "Transfer-Encoding: chunked\r\n",
        "5\r\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "extension with line feed",
        400,
        "Transfer-Encoding: chunked\r\n",
        "17;a\napp_key=abc&device_id=d\r\n0\r\n\r\n",
    ),
    (
        "broken trailer",
        400,
        "Transfer-Encoding: chunked\r\n",
        "17\r\napp_key=abc&device_id=d\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    ),
    (
        "unknown expectation",
        417,
        "Expect: 200-ok\r\nContent-Length: 23\r\n",
        "app_key=abc&device_id=d",
    ),
];

/// Name, status and all of a request.
pub(super) const WHOLE: &[(&str, u16, &str)] = &[
    (
        "first header folded",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\n Host: a\r\n\r\n",
    ),
    (
        "bare line feed after a header",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    ),
    (
        "bare line feeds",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\nHost: a\n\n",
    ),
    (
        "bare carriage return in a value",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    ),
    (
        "bare carriage return as line end",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\rHost: a\r\n\r\n",
    ),
    (
        "NUL in a value",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    ),
    (
        "NUL in a name",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
    ),
    (
        "empty name",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    ),
    (
        "no colon",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n",
    ),
    (
        "odd name",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n",
    ),
    (
        "coding in HTTP/1.0",
        400,
        "POST /i?app_key=abc&device_id=d HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "no host",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\n\r\n",
    ),
    (
        "two hosts",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ),
    (
        "hosts in a list",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a, b\r\n\r\n",
    ),
    (
        "host with path",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ),
    (
        "host with user",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: u@a\r\n\r\n",
    ),
    (
        "two hosts in HTTP/1.0",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
    ),
    (
        "user in target",
        400,
        "GET http://u@a/i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "other scheme",
        400,
        "GET ftp://a/i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "fragment",
        400,
        "GET /i?app_key=abc&device_id=d#x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "control in target",
        400,
        "GET /i?app_key=abc&device_id=d\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "text beyond ASCII in target",
        400,
        "GET /i?app_key=abc&device_id=dü HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "no slash",
        400,
        "GET i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("star", 400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "two spaces",
        400,
        "GET  /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "tab in request line",
        400,
        "GET\t/i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "space after version",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/1.1 \r\nHost: a\r\n\r\n",
    ),
    (
        "space in target",
        400,
        "GET /i?app_key=abc&device_id=d x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "leading space",
        400,
        " GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "odd method",
        400,
        "G(T /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "no version",
        400,
        "GET /i?app_key=abc&device_id=d\r\nHost: a\r\n\r\n",
    ),
    (
        "lower case version",
        400,
        "GET /i?app_key=abc&device_id=d http/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "HTTP/1.2",
        505,
        "GET /i?app_key=abc&device_id=d HTTP/1.2\r\nHost: a\r\n\r\n",
    ),
    (
        "HTTP/2.0",
        505,
        "GET /i?app_key=abc&device_id=d HTTP/2.0\r\nHost: a\r\n\r\n",
    ),
    (
        "HTTP/01.1",
        400,
        "GET /i?app_key=abc&device_id=d HTTP/01.1\r\nHost: a\r\n\r\n",
    ),
    ("a TLS hello", 400, "\x16\x03\x01\x02\0"),
];
