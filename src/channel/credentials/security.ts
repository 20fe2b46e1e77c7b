// Who may listen in. Mutual TLS for everything that leaves the host; plaintext on loopback, or where it was asked
// for by name.

import { codeOf } from '../../errors.js';
import { ChannelError } from '../contract.js';

/** PEM. `ca` signs the other side's certificate; `cert` is ours and goes to the other side in either direction. */
export interface ChannelTls {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  readonly ca: string | Buffer;
}

export const TLS_VERSION_MIN = 'TLSv1.3';

/** 127.0.0.0/8, ::1 and localhost. `host` may stand in brackets, as it does in a URL. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  return bare === 'localhost' || bare === '::1' || /^(::ffff:)?127(\.\d{1,3}){3}$/.test(bare);
}

/** @throws ChannelError PLAINTEXT_REFUSED for plaintext that would leave the host unasked */
export function checkPlaintext(host: string, encrypted: boolean, plaintext: boolean | undefined): void {
  if (encrypted || plaintext === true || isLoopback(host)) return;
  const message = `${host} is not loopback: give it TLS, or ask for plaintext by name`;
  throw new ChannelError('PLAINTEXT_REFUSED', message, { host });
}

/** The codes of OpenSSL's certificate verification, of TLS alerts and of Node's own checks. */
export function isTlsError(error: unknown): boolean {
  return /^ERR_(SSL|TLS|OSSL)|^EPROTO$|CERT|UNABLE_TO_(GET|VERIFY|DECRYPT)|SELF_SIGNED|_CRL|HOSTNAME_MISMATCH/.test(
    codeOf(error),
  );
}
