// The witness that is an etcd: the register of a domain is the value of a key. It is written by a transaction that
// compares the key's modification revision, which is another after each write, and 0 for a key that is not there.
//
//   read            range, linearizable: a majority of the members stands behind it
//   compareAndSet   range: is it what was expected, and at which revision? ─▶ txn at the member that answered
//
// A transaction whose reply is lost is not sent to another member here: whether it is done is then not known, and finding
// out is settle()'s.

import { WitnessError } from '../../error.js';
import {
  checkDomain,
  checkWrite,
  sameRegister,
  written,
  type Register,
  type RegisterWitness,
} from '../../register.js';
import { limited } from '../limited.js';
import { decodeRegister, encodeRegister, isRecord, VALUE_BYTES_MAX } from '../value.js';
import { Endpoints } from './endpoints.js';
import { EtcdMembers, type EtcdAccess } from './member.js';

const PREFIX = '/romulus/';
const REQUEST_TIMEOUT_MS = 1000;

export interface EtcdWitnessOptions extends EtcdAccess {
  /** "http://host:2379" or https: the members. */
  readonly endpoints: readonly string[];
  /** Of the keys, before the name of the domain. */
  readonly prefix?: string;
  /** Of a read, and of each of the two steps of an attempt to write. */
  readonly requestTimeoutMs?: number;
}

/** @throws WitnessError BAD_OPTIONS */
export function createEtcdWitness(options: EtcdWitnessOptions): RegisterWitness {
  return new EtcdWitness(options);
}

interface Held {
  readonly register: Register | null;
  /** Decimal, of 64 bits; "0" where there is none. */
  readonly revision: string;
}

class EtcdWitness implements RegisterWitness {
  readonly name: string;
  readonly #endpoints: Endpoints;
  readonly #members: EtcdMembers;
  readonly #prefix: string;
  readonly #limitMs: number;
  readonly #closed = new AbortController();

  constructor(options: EtcdWitnessOptions) {
    const { endpoints, prefix = PREFIX, requestTimeoutMs = REQUEST_TIMEOUT_MS } = options;
    this.#endpoints = new Endpoints(endpoints);
    this.#members = new EtcdMembers(options);
    this.#prefix = prefix;
    this.#limitMs = requestTimeoutMs;
    this.name = `etcd at ${endpoints.map((endpoint) => new URL(endpoint).host).join(', ')}`;
  }

  async read(domain: string, signal?: AbortSignal) {
    checkDomain(domain);
    const { answer } = await this.#range(domain, signal);
    return answer.register;
  }

  async compareAndSet(...given: Parameters<RegisterWitness['compareAndSet']>) {
    const [domain, expected, claim, token, signal] = given;
    const write = { expected, claim, token };
    checkWrite(domain, write);
    const { endpoint, answer } = await this.#range(domain, signal);
    if (!sameRegister(answer.register, expected)) return 'lost';
    const key = this.#key(domain);
    const value = encodeRegister(written(write)).toString('base64');
    const body = {
      compare: [{ key, target: 'MOD', result: 'EQUAL', mod_revision: answer.revision }],
      success: [{ request_put: { key, value } }],
    };
    const reply = await this.#limited(signal, (inner) =>
      this.#members.call(endpoint, '/v3/kv/txn', body, inner),
    );
    return succeeded(reply, endpoint) ? 'won' : 'lost';
  }

  close(): void {
    this.#closed.abort();
  }

  #range(domain: string, signal: AbortSignal | undefined) {
    const key = this.#key(domain);
    const ask = async (endpoint: URL, inner: AbortSignal) =>
      heldOf(await this.#members.call(endpoint, '/v3/kv/range', { key }, inner), key, endpoint);
    return this.#limited(signal, (inner) => this.#endpoints.ask(ask, this.#limitMs, inner));
  }

  #limited<T>(signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { name } = this;
    return limited({ name, limitMs: this.#limitMs, signal, closed: this.#closed.signal }, work);
  }

  #key(domain: string): string {
    return Buffer.from(this.#prefix + domain).toString('base64');
  }
}

/** What is not there is left out of an answer (0, false, an empty list): it must be an answer before it says so. */
function checkAnswer(body: Record<string, unknown>, endpoint: URL): void {
  const { header } = body;
  if (isRecord(header) && isNumber(header['revision'])) return;
  throw unlike(endpoint);
}

function succeeded(body: Record<string, unknown>, endpoint: URL): boolean {
  checkAnswer(body, endpoint);
  const { succeeded = false } = body;
  if (typeof succeeded !== 'boolean') throw unlike(endpoint);
  return succeeded;
}

function heldOf(body: Record<string, unknown>, key: string, endpoint: URL): Held {
  checkAnswer(body, endpoint);
  const { kvs = [], count = '0' } = body;
  if (!Array.isArray(kvs) || String(kvs.length) !== count) throw unlike(endpoint);
  if (kvs.length === 0) return { register: null, revision: '0' };
  const [pair] = kvs as unknown[];
  if (kvs.length > 1 || !isRecord(pair) || pair['key'] !== key) throw unlike(endpoint);
  const { mod_revision: revision, value = '' } = pair;
  if (!isNumber(revision) || typeof value !== 'string' || value.length > 2 * VALUE_BYTES_MAX) {
    throw unlike(endpoint);
  }
  const where = `${endpoint.host}${Buffer.from(key, 'base64').toString()}`;
  return { register: decodeRegister(Buffer.from(value, 'base64'), where), revision };
}

function isNumber(value: unknown): value is string {
  return typeof value === 'string' && /^[1-9]\d{0,18}$/.test(value);
}

function unlike(endpoint: URL): WitnessError {
  return new WitnessError('CORRUPT', 'what answers does not answer as etcd does', {
    endpoint: endpoint.href,
  });
}
