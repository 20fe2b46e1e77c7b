// The WebSocket close codes of the channel: 4000 + n (the range that RFC 6455 leaves to applications), one for each
// ChannelErrorCode that one side tells the other. The error message that goes before the close says more; the close
// code is what arrives when that message does not.

import type { ChannelErrorCode } from '../contract.js';

/** Normal end, after a bye. */
export const CLOSE_NORMAL = 1000;

/** The HTTP header that carries the code of a refusal before there is a WebSocket. */
export const ERROR_HEADER = 'romulus-error';

const codes: Readonly<Record<ChannelErrorCode, number>> = {
  INTERNAL: 4000,
  BAD_SUBPROTOCOL: 4001,
  PROTOCOL_VERSION: 4002,
  UNKNOWN_DOMAIN: 4003,
  DOMAIN_MISMATCH: 4004,
  ALREADY_LINKED: 4005,
  HANDSHAKE_TIMEOUT: 4006,
  BAD_MESSAGE: 4007,
  MESSAGE_TOO_LARGE: 4008,
  DIGEST_MISMATCH: 4009,
  BUFFER_LIMIT: 4010,
  HEARTBEAT_TIMEOUT: 4011,
  FENCED: 4012,
  // These are found out by one side about the connection itself and are not told over it; they have a number so that
  // every code has one.
  REFUSED: 4013,
  UNREACHABLE: 4014,
  LINK_CLOSED: 4015,
  TLS: 4016, // told in HTTP
  PLAINTEXT_REFUSED: 4017,
  LISTEN_FAILED: 4020,
  // Told over the connection like those at the top.
  ACKNOWLEDGE_TIMEOUT: 4019,
  STANDBY_LOST: 4021,
  STATE_REFUSED: 4022,
  NAME_REFUSED: 4030,
  NOT_AUTHENTICATED: 4031,
  TOKEN_MISMATCH: 4032,
};

const names = new Map<number, ChannelErrorCode>([
  // What a WebSocket library says by itself: RFC 6455, section 7.4.1.
  [1002, 'BAD_MESSAGE'], // protocol error
  [1003, 'BAD_MESSAGE'], // unsupported data
  [1007, 'BAD_MESSAGE'], // not UTF-8
  [1008, 'BAD_MESSAGE'], // policy
  [1009, 'MESSAGE_TOO_LARGE'], // message too big
]);
for (const name of Object.keys(codes) as ChannelErrorCode[]) names.set(codes[name], name);

export function closeCodeOf(code: ChannelErrorCode): number {
  return codes[code];
}

/** The error behind a close code. Whatever says nothing (1000, 1001, 1006 = cut) is LINK_CLOSED. */
export function errorOfCloseCode(closeCode: number): ChannelErrorCode {
  return names.get(closeCode) ?? 'LINK_CLOSED';
}

export function isChannelErrorCode(code: string): code is ChannelErrorCode {
  return Object.hasOwn(codes, code);
}
