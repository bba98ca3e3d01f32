"""Keys by reference, as the tests of who may call configure them."""

KEYS = {
    "WEB_APP_KEY": "web-app-key-of-32-characters-000",
    "CI_KEY": "ci-key-of-32-characters-00000000",
}
WEB = "keys: {web: {key: '${WEB_APP_KEY}', %s}}"
