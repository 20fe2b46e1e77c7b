// The witness of two hosts with nothing between them: who wants to go on alone turns the other one off first. Then nobody
// is left who could run the domain as well, or let anything out.
//
//   a write that leaves a host behind ─▶ has it let go by its own word? ─┬─ yes ─▶ the register
//                                                                        └─ no ──▶ fenced ─▶ the register
//
// Each host has registers of its own, in a directory of its own (they are those of the witness `file`). So what they say
// of the other is as old as the last thing that was heard of it: a host that is not linked is never believed to be off.

import { WitnessError } from '../../error.js';
import {
  checkHost,
  checkWrite,
  sameRegister,
  type Claim,
  type Register,
  type RegisterWitness,
} from '../../register.js';
import { createFileWitness } from '../file/file.js';
import { Fencer, type FencerOptions } from './fencer.js';

const TIMEOUT_MS = 30_000;
const ATTEMPTS = 3;
const RETRY_DELAY_MS = 1000;

export interface FenceWitnessOptions extends Partial<FencerOptions> {
  readonly command: readonly string[];
  /** This host. */
  readonly host: string;
  /** The others that may run a domain. */
  readonly peers: readonly string[];
  /** Of this host alone, on a disk that outlives it. It must exist. */
  readonly directory: string;
  /**
   * That host is linked now, and has said that it does not run this domain, and holds nothing of it that it would go on
   * from: it need not be turned off. Default: never.
   */
  readonly hasLetGo?: (domain: string, host: string) => boolean;
  /** Of one read or write in the directory. */
  readonly requestTimeoutMs?: number;
}

/** @throws WitnessError BAD_OPTIONS, BAD_CLAIM (the name of a host) */
export function createFenceWitness(options: FenceWitnessOptions): RegisterWitness {
  return new FenceWitness(options);
}

class FenceWitness implements RegisterWitness {
  readonly name: string;
  readonly #options: FenceWitnessOptions;
  readonly #own: RegisterWitness;
  readonly #fencer: Fencer;
  readonly #closed = new AbortController();
  /** For the last write of each domain, by its token: another attempt of it need not turn anybody off again. */
  readonly #off = new Map<string, { readonly token: string; readonly hosts: Set<string> }>();

  constructor(options: FenceWitnessOptions) {
    const { host, peers, command, directory, requestTimeoutMs } = options;
    const { timeoutMs = TIMEOUT_MS, attempts = ATTEMPTS, retryDelayMs = RETRY_DELAY_MS } = options;
    for (const each of [host, ...peers]) checkHost(each);
    const [program = ''] = command;
    if (program === '') throw new WitnessError('BAD_OPTIONS', 'there is no command that fences');
    this.#options = options;
    this.#own = createFileWitness({ directory, ...(requestTimeoutMs !== undefined && { requestTimeoutMs }) });
    this.#fencer = new Fencer({ command, timeoutMs, attempts, retryDelayMs });
    this.name = `fencing by ${program}`;
  }

  read(domain: string, signal?: AbortSignal) {
    return this.#own.read(domain, signal);
  }

  async compareAndSet(...given: Parameters<RegisterWitness['compareAndSet']>) {
    const [domain, expected, claim, token, signal] = given;
    checkWrite(domain, { expected, claim, token });
    // Nobody is turned off for a write that is lost.
    if (!sameRegister(await this.#own.read(domain, signal), expected)) return 'lost';
    const hosts = this.#leftBehind(expected, claim).filter(
      (host) => !this.#isOff(domain, token, host) && this.#options.hasLetGo?.(domain, host) !== true,
    );
    await Promise.all(hosts.map((host) => this.#fence(domain, token, host, signal)));
    const outcome = await this.#own.compareAndSet(domain, expected, claim, token, signal);
    this.#off.delete(domain);
    return outcome;
  }

  async close(): Promise<void> {
    this.#closed.abort();
    await this.#own.close();
  }

  /** Who might run the domain, or go on with it, and has no part in it by this claim of ours. */
  #leftBehind(expected: Register | null, claim: Claim): string[] {
    const { host, peers } = this.#options;
    if (claim.owner !== host) return [];
    const wasOurs = expected === null || (expected.mode === 'alone' && expected.owner === host);
    const others = wasOurs ? (claim.mode === 'alone' ? peers : []) : [expected.owner, expected.standby];
    return [...new Set(others)].filter(
      (each): each is string => each !== null && each !== host && each !== claim.standby,
    );
  }

  #isOff(domain: string, token: string, host: string): boolean {
    const off = this.#off.get(domain);
    return off?.token === token && off.hosts.has(host);
  }

  async #fence(domain: string, token: string, host: string, signal: AbortSignal | undefined): Promise<void> {
    const either = new AbortController();
    const abort = () => either.abort();
    for (const each of [signal, this.#closed.signal]) {
      each?.addEventListener('abort', abort, { once: true });
      if (each?.aborted) abort();
    }
    try {
      await this.#fencer.fence(domain, host, either.signal);
    } catch (error) {
      if (this.#closed.signal.aborted) throw new WitnessError('CLOSED', `${this.name} was closed`);
      throw error;
    } finally {
      for (const each of [signal, this.#closed.signal]) each?.removeEventListener('abort', abort);
    }
    const off = this.#off.get(domain);
    if (off?.token === token) off.hosts.add(host);
    else this.#off.set(domain, { token, hosts: new Set([host]) });
  }
}
