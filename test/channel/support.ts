// What the channel's tests share: a listener with one domain, pieces, and ways to wait for what a link does.

import { readFileSync } from 'node:fs';
import { filter, firstValueFrom } from 'rxjs';
import { ChannelError, type LinkEvent, type PrimaryLink } from '../../src/channel/contract.js';
import { dial, type DialOptions } from '../../src/channel/dial/dialer.js';
import { PrimaryListener, type PrimaryListenerOptions } from '../../src/channel/listen/listener.js';
import type { ChannelTls } from '../../src/channel/credentials/security.js';
import { HEADROOM, type StreamPiece } from '../../src/stream/flow.js';
import { RecordType } from '../../src/stream/format.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';

export const DOMAIN = 'web1';
export const STREAM = '5f2c6a3e-0c8f-4b59-9f0e-7a1d8c1f2b3a';

export function helloOf(domain = DOMAIN): DialOptions['hello'] {
  return {
    domain,
    host: 'south',
    hypervisor: 'memory',
    domainType: 2,
    p2mSize: 1024,
    inventory: {},
    streamUuid: null,
    epoch: null,
    pairing: null,
    shared: null,
    images: null,
    blankDisks: [],
  };
}

export class TestPrimary {
  readonly listener: PrimaryListener;
  readonly links: PrimaryLink[] = [];
  readonly log: { code: unknown; message: string }[] = [];
  port = 0;
  readonly #waiting: ((link: PrimaryLink) => void)[] = [];
  readonly #secondaryNames: readonly string[];

  constructor(options: Partial<PrimaryListenerOptions> = {}, secondaryNames = ['127.0.0.1']) {
    this.#secondaryNames = secondaryNames;
    this.listener = new PrimaryListener({
      host: '127.0.0.1',
      port: 0,
      heartbeatIntervalMs: 50,
      heartbeatTimeoutMs: 1000,
      log: {
        info: () => undefined,
        warn: (facts, message) => this.log.push({ code: facts['code'], message }),
      },
      ...options,
    });
  }

  async start(): Promise<this> {
    this.port = (await this.listener.listen()).port;
    this.listener.offer({
      domain: DOMAIN,
      secondaryNames: this.#secondaryNames,
      welcome: (hello) => {
        if (hello.p2mSize !== 1024) {
          throw new ChannelError('DOMAIN_MISMATCH', 'memory differs', { p2mSize: hello.p2mSize });
        }
        return {
          host: 'north',
          streamUuid: STREAM,
          continuous: false,
          resumes: false,
          pairing: STREAM,
          windowEpochs: 1,
        };
      },
      linked: (link) => {
        this.links.push(link);
        this.#waiting.shift()?.(link);
      },
    });
    return this;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  nextLink(): Promise<PrimaryLink> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Both ends of a new link. */
  async pair(options: Partial<DialOptions> = {}) {
    const next = this.nextLink();
    const secondary = await dial({ url: this.url, hello: helloOf(), ...options });
    return { primary: await next, secondary };
  }
}

export function pieceOf(...parts: readonly Uint8Array[]): StreamPiece {
  const body = concatenate(parts);
  const memory = new Uint8Array(HEADROOM + body.length);
  memory.set(body, HEADROOM);
  return { memory, start: HEADROOM, end: memory.length };
}

export const streamHeaders = encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 });
export const checkpointRecord = encodeRecord(RecordType.CHECKPOINT);
export const endRecord = encodeRecord(RecordType.END);

/** A record of `length` octets that a test recognises by its first octet. */
export function bulkRecord(length: number, mark: number): Uint8Array {
  return encodeRecord(RecordType.HVM_CONTEXT, new Uint8Array(length).fill(mark));
}

export async function lostOf(link: { readonly events$: PrimaryLink['events$'] }): Promise<ChannelError> {
  const isLost = (event: LinkEvent) => event.kind === 'lost';
  const event = await firstValueFrom(link.events$.pipe(filter(isLost)));
  return event.error;
}

export async function errorOf(promise: Promise<unknown>): Promise<ChannelError> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof ChannelError) return thrown;
    throw thrown;
  }
  throw new Error('expected a ChannelError, and there was none');
}

export function tlsOf(name: 'host' | 'stranger'): ChannelTls {
  const read = (file: string) =>
    readFileSync(new URL(`../../../test/fixtures/tls/${file}`, import.meta.url), 'utf8');
  return { cert: read(`${name}.pem`), key: read(`${name}.key`), ca: read('ca.pem') };
}

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
