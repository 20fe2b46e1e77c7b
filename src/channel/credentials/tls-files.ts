// The certificate, key and authority of one side, as they stand in their files now. Whoever renews a certificate writes
// files (watched-files.ts). A set is taken whole or not at all: while one is half-written, does not fit together or has
// expired, the one before stays.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Logger } from 'pino';
import { Subject, type Observable } from 'rxjs';
import { asError } from '../../errors.js';
import { ChannelError } from '../contract.js';
import type { ChannelTls } from './security.js';
import { POLL_MS, WatchedFiles } from './watched-files.js';

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

export class TlsFiles {
  /** Each set that replaced another. */
  readonly changes$: Observable<ChannelTls>;

  readonly #files: TlsPaths;
  readonly #log: Logger;
  readonly #changes = new Subject<ChannelTls>();
  readonly #timer: NodeJS.Timeout;
  readonly #watched: WatchedFiles;
  #material: Material;
  #warnedAtMs = -Infinity;
  #closed = false;

  /** @throws ChannelError TLS for files that do not fit together; Node's system error for one that cannot be read */
  constructor(files: TlsPaths, log: Logger, pollMs = POLL_MS) {
    this.#files = files;
    this.#log = log;
    this.changes$ = this.#changes.asObservable();
    const { cert, key, ca } = files;
    this.#material = judge({ cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(ca) });
    this.#warn();
    this.#timer = setInterval(() => this.#warn(), pollMs).unref();
    this.#watched = new WatchedFiles({
      files: [cert, key, ca],
      read: () => this.#read(),
      complain: (error) =>
        log.warn({ err: error }, `the certificate in use stays, the new one is not taken: ${error.message}`),
      pollMs,
    });
  }

  /** The certificate's. */
  get file(): string {
    return this.#files.cert;
  }

  get current(): ChannelTls {
    return this.#material.tls;
  }

  get expiries(): readonly CertificateExpiry[] {
    return this.#material.expiries;
  }

  /** Reads the files now. Resolves when that is done: to null, or to why they are not taken, which is in the log. */
  reload(): Promise<Error | null> {
    return this.#watched.reload();
  }

  close(): void {
    this.#closed = true;
    this.#watched.close();
    clearInterval(this.#timer);
    this.#changes.complete();
  }

  async #read(): Promise<void> {
    const { cert, key, ca } = this.#files;
    const [certificate, privateKey, authority] = await Promise.all([
      readFile(cert),
      readFile(key),
      readFile(ca),
    ]);
    if (!this.#closed) this.#take({ cert: certificate, key: privateKey, ca: authority });
  }

  #take(tls: ChannelTls): void {
    const { cert, key, ca } = this.#material.tls;
    if (sameOctets(cert, tls.cert) && sameOctets(key, tls.key) && sameOctets(ca, tls.ca)) return;
    const material = judge(tls);
    const late = material.expiries.find(({ expiresAtMs }) => expiresAtMs <= Date.now());
    if (late)
      throw new ChannelError('TLS', `${what(late, this.#files)} has expired`, { file: this.#files.cert });
    this.#material = material;
    this.#log.info({ certificate: this.#files.cert, ...dates(material) }, 'a new certificate is in use');
    this.#changes.next(tls);
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
        this.#log.warn({ expires }, message);
      } else {
        this.#log.error({ expires }, `${what(expiry, this.#files)} has expired: no link can be made`);
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
