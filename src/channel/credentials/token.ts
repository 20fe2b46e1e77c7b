// How two processes in plaintext show each other that they know the same secret, without telling it to whoever listens
// on the port or connects to it. In the handshake that there is anyway:
//
//   secondary                                      primary
//   HTTP upgrade, nonce S               ────────▶
//                                       ◀────────  101, nonce P, HMAC(token, "primary" S P)
//   hello, HMAC(token, "secondary" S P) ────────▶
//
// The secondary says nothing more to a primary that does not know the token. The proofs are of this connection's two
// nonces and of a side, so none can be used again or sent back. What follows is not protected: nobody can get between
// two processes on loopback, and elsewhere TLS is for that.
//
// A token may be changed while two sides are linked, on one of them first. The next link is then refused; but a primary
// that refuses lives, and who only listens in its place must not be taken for it. So with the upgrade it shows that it
// knows each token that it has had (signs of life), and the secondary looks for that of its last link. Nothing else
// follows from a sign of life: it does not open the door.

import type { IncomingHttpHeaders } from 'node:http';
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

export interface ChannelToken {
  readonly secret: string;
  /** Where it stands, for people. */
  readonly file: string;
}

export interface Nonces {
  readonly secondary: string;
  readonly primary: string;
}

export const NONCE_HEADER = 'romulus-nonce';
export const PROOF_HEADER = 'romulus-proof';
/** Signs of life, with spaces between them. */
export const LIFE_HEADER = 'romulus-life';
/** Tokens that a primary remembers, the latest. */
export const TOKENS_MAX = 16;

/** What is proved: that one is this side, or a primary that has had the token. */
export type Claim = keyof Nonces | 'life';

const NONCE_BYTES = 32;

export function newNonce(): string {
  return randomBytes(NONCE_BYTES).toString('hex');
}

export function isNonce(given: unknown): given is string {
  return typeof given === 'string' && /^[0-9a-f]{64}$/.test(given);
}

export function proofOf(token: ChannelToken, claim: Claim, nonces: Nonces): string {
  return createHmac('sha256', token.secret)
    .update(`romulus ${claim} ${nonces.secondary} ${nonces.primary}`)
    .digest('hex');
}

export function isProof(token: ChannelToken, claim: Claim, nonces: Nonces, given: unknown): boolean {
  if (typeof given !== 'string') return false;
  const expected = Buffer.from(proofOf(token, claim, nonces));
  const said = Buffer.from(given);
  return said.length === expected.length && timingSafeEqual(said, expected);
}

/** What the answer to an upgrade shows. */
export type Shown =
  | { readonly kind: 'token'; /** That we know it, too. */ readonly proof: string }
  /** It has had the token of the last link. */
  | { readonly kind: 'life' }
  | { readonly kind: 'nothing' };

/** `secondary`: the nonce of the request. */
export function judgeAnswer(
  headers: IncomingHttpHeaders,
  secondary: string,
  token: ChannelToken,
  last: ChannelToken | undefined,
): Shown {
  const primary = headers[NONCE_HEADER];
  if (!isNonce(primary)) return { kind: 'nothing' };
  const nonces = { secondary, primary };
  if (isProof(token, 'primary', nonces, headers[PROOF_HEADER])) {
    return { kind: 'token', proof: proofOf(token, 'secondary', nonces) };
  }
  const signs = String(headers[LIFE_HEADER] ?? '').split(' ', TOKENS_MAX);
  const lives = last !== undefined && signs.some((sign) => isProof(last, 'life', nonces, sign));
  return { kind: lives ? 'life' : 'nothing' };
}
