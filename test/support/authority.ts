// Certificates as an operator makes them, by openssl: an authority, and leaves with names, times and uses of their own.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ChannelTls } from '../../src/channel/credentials/security.js';

export interface LeafOptions {
  /** Subject alternative names, as openssl takes them; default: 127.0.0.1. */
  readonly names?: string;
  readonly from?: Date;
  /** Default: in 30 days. */
  readonly until?: Date;
  /** As openssl takes it: serverAuth, clientAuth. Default: no restriction. */
  readonly use?: string;
}

/** Paths, as a configuration has them. */
export interface LeafFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

const MILLISECONDS_PER_DAY = 24 * 3600 * 1000;
const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

const CONFIGURATION = `
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = policy
unique_subject = no
copy_extensions = copy
[policy]
commonName = supplied
`;

export class Authority {
  readonly file: string;
  readonly #directory: string;
  readonly #name: string;
  #count = 0;

  /** In a directory of the caller's; `days` that it is valid. */
  constructor(directory: string, name = 'ca', days = 365) {
    this.#directory = directory;
    this.#name = name;
    this.file = path.join(directory, `${name}.crt`);
    const files = ['-keyout', `${name}.key`, '-out', `${name}.crt`];
    this.#openssl('req', '-x509', ...CURVE, '-days', String(days), ...files, '-subj', `/CN=${name}`);
    writeFileSync(path.join(directory, `${name}.cnf`), CONFIGURATION.replace('index.txt', `${name}.txt`));
    writeFileSync(path.join(directory, `${name}.txt`), '');
  }

  issue(options: LeafOptions = {}): LeafFiles {
    const { names = 'IP:127.0.0.1', from = new Date(Date.now() - MILLISECONDS_PER_DAY), use } = options;
    const { until = new Date(Date.now() + 30 * MILLISECONDS_PER_DAY) } = options;
    const leaf = `${this.#name}-${this.#count++}`;
    const extensions = ['-addext', 'basicConstraints=critical,CA:FALSE'];
    if (names !== '') extensions.push('-addext', `subjectAltName=${names}`);
    if (use !== undefined) extensions.push('-addext', `extendedKeyUsage=${use}`);
    const request = ['-keyout', `${leaf}.key`, '-out', `${leaf}.csr`, '-subj', `/CN=${leaf}`];
    this.#openssl('req', '-new', ...CURVE, ...request, ...extensions);
    const signer = [
      '-config',
      `${this.#name}.cnf`,
      '-cert',
      `${this.#name}.crt`,
      '-keyfile',
      `${this.#name}.key`,
    ];
    const times = ['-startdate', generalized(from), '-enddate', generalized(until)];
    this.#openssl(
      'ca',
      '-batch',
      '-notext',
      ...signer,
      ...times,
      '-in',
      `${leaf}.csr`,
      '-out',
      `${leaf}.crt`,
    );
    const at = (end: string) => path.join(this.#directory, `${leaf}.${end}`);
    return { cert: at('crt'), key: at('key'), ca: this.file };
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.#directory, stdio: 'pipe' });
  }
}

export function read({ cert, key, ca }: LeafFiles): ChannelTls {
  return { cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(ca) };
}

/** YYYYMMDDHHMMSSZ */
function generalized(date: Date): string {
  return `${date.toISOString().slice(0, 19).replace(/[-:T]/g, '')}Z`;
}
