// The certificate, key and authority of one side, as they stand in their files now. Whoever renews a certificate writes
// files (watched-files.ts). A set is taken whole or not at all: while one is half-written, does not fit together or has
// expired, the one before stays.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Logger } from 'pino';
import { asError } from '../../errors.js';
import { ChannelError } from '../contract.js';
import type { ChannelTls } from './security.js';
import { WatchedFiles } from './watched-files.js';

const MILLISECONDS_PER_DAY = 24 * 3600 * 1000;
/** So long before a certificate expires it is said, once a day. */
const WARN_DAYS = 14;

/** Files, PEM. `ca` signs the other side's certificate; `cert` is ours. */
export interface TlsPaths {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export interface CertificateExpiry {
  /** This side's own, or the authority that it holds the other side to. */
  readonly certificate: 'own' | 'authority';
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number;
}

interface Material {
  readonly tls: ChannelTls;
  readonly expiries: readonly CertificateExpiry[];
}

export class TlsFiles extends WatchedFiles {
  readonly #files: TlsPaths;
  readonly #changed: () => void;
  #material: Material;
  #warnedAtMs = -Infinity;

  /**
   * @param changed another set is in use now
   * @throws ChannelError TLS for files that do not fit together; Node's system error for one that cannot be read
   */
  constructor(files: TlsPaths, changed: () => void, log: Logger, pollMs?: number) {
    const { cert, key, ca } = files;
    const material = judge({ cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(ca) });
    super('certificate', [cert, key, ca], log, pollMs);
    this.#files = files;
    this.#changed = changed;
    this.#material = material;
    this.#warn();
  }

  get current(): ChannelTls {
    return this.#material.tls;
  }

  get expiries(): readonly CertificateExpiry[] {
    return this.#material.expiries;
  }

  protected override poll(): void {
    this.#warn();
    super.poll();
  }

  protected override async read(): Promise<void> {
    const { cert, key, ca } = this.#files;
    const read = await Promise.all([readFile(cert), readFile(key), readFile(ca)]);
    if (!this.closed) this.#take({ cert: read[0], key: read[1], ca: read[2] });
  }

  #take(tls: ChannelTls): void {
    const { cert, key, ca } = this.#material.tls;
    if (sameOctets(cert, tls.cert) && sameOctets(key, tls.key) && sameOctets(ca, tls.ca)) return;
    const material = judge(tls);
    const late = material.expiries.find(({ expiresAtMs }) => expiresAtMs <= Date.now());
    if (late) {
      throw new ChannelError('TLS', `${what(late, this.#files)} has expired`, { file: this.#files.cert });
    }
    this.#material = material;
    this.log.info({ certificate: this.#files.cert, ...dates(material) }, 'a new certificate is in use');
    this.#changed();
    this.#warnedAtMs = -Infinity;
    this.#warn();
  }

  #warn(): void {
    const nowMs = Date.now();
    if (nowMs - this.#warnedAtMs < MILLISECONDS_PER_DAY) return;
    for (const expiry of this.expiries) {
      const days = (expiry.expiresAtMs - nowMs) / MILLISECONDS_PER_DAY;
      if (days > WARN_DAYS) continue;
      this.#warnedAtMs = nowMs;
      const expires = new Date(expiry.expiresAtMs).toISOString();
      if (days > 0) {
        const message = `${what(expiry, this.#files)} expires in ${Math.floor(days)} days: no link can be made then`;
        this.log.warn({ expires }, message);
      } else {
        this.log.error({ expires }, `${what(expiry, this.#files)} has expired: no link can be made`);
      }
    }
  }
}

function what({ certificate }: CertificateExpiry, { cert, ca }: TlsPaths): string {
  return certificate === 'own' ? `the certificate in ${cert}` : `the authority in ${ca}`;
}

function dates({ expiries }: Material): Record<string, string> {
  return Object.fromEntries(
    expiries.map(({ certificate, expiresAtMs }) => [
      `${certificate} expires`,
      new Date(expiresAtMs).toISOString(),
    ]),
  );
}

function sameOctets(one: string | Buffer, other: string | Buffer): boolean {
  return Buffer.from(one).equals(Buffer.from(other));
}

/** @throws ChannelError TLS */
function judge(tls: ChannelTls): Material {
  try {
    createSecureContext({ cert: tls.cert, key: tls.key, ca: tls.ca });
    const chain = certificatesOf(tls.cert);
    const [own] = chain;
    if (!own) throw new Error('there is no certificate');
    const authorities = certificatesOf(tls.ca);
    if (authorities.length === 0) throw new Error('there is no authority');
    // While authorities change there are several: that of our own certificate counts, and of those the longest.
    const issuers = authorities.filter((authority) => chain.some((each) => each.checkIssued(authority)));
    const authority = Math.max(...(issuers.length > 0 ? issuers : authorities).map(endOf));
    return {
      tls,
      expiries: [
        { certificate: 'own', expiresAtMs: Math.min(...chain.map(endOf)) },
        { certificate: 'authority', expiresAtMs: authority },
      ],
    };
  } catch (thrown) {
    const cause = asError(thrown);
    throw new ChannelError('TLS', `the TLS certificate or key: ${cause.message}`, {}, { cause });
  }
}

function certificatesOf(pem: string | Buffer): X509Certificate[] {
  const blocks = pem
    .toString()
    .match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----.*?-----END (?:TRUSTED )?CERTIFICATE-----/gs);
  return (blocks ?? []).map((block) => new X509Certificate(block));
}

function endOf(certificate: X509Certificate): number {
  return Date.parse(certificate.validTo);
}
