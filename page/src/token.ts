// What the viewer is known by: a token that he gave, for as long as the tab is open. No other page can read it, and none is sent by itself.

const KEY = "sluice.token";

export function readToken(): string | null {
  return sessionStorage.getItem(KEY);
}

export function keepToken(token: string) {
  sessionStorage.setItem(KEY, token);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}
