"""What a browser sees at the address that `tinyfat up` prints: what this is, and what to type. It tells nothing of this
installation: anybody may ask."""

FIRST_PAGE = "/"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TinyFat</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 1.05rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 0 auto; padding: 2rem 1.25rem; }
  h1 { font-size: 1.6rem; margin: 0 0 1rem; }
  h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
  pre { overflow-x: auto; padding: .8rem 1rem; border-radius: .5rem; background: rgb(127 127 127 / .15); }
  code { font: .95rem/1.5 ui-monospace, monospace; }
</style>
</head>
<body>
<h1>TinyFat runs here</h1>
<p>It gives people their own always-on AI agent, which they write to by mail. There is no page to sign in to:
this address is for programs, the command line among them.</p>
<h2>If you run this</h2>
<p>In a terminal on the same machine:</p>
<pre><code>tinyfat agent create ada --owner you@example.org --wait
tinyfat mail list
tinyfat doctor</code></pre>
<h2>If you have an agent here</h2>
<p>Write it a mail: its address is its name, an @, and this domain. Whoever runs it can tell you more.</p>
</body>
</html>
"""
