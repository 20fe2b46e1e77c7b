// The witness that is a directory which all hosts see: on NFS, GFS2, or another cluster file system (generations.ts). A
// process of ours works in it (process.ts), because the server of such a directory may stop answering.
//
//   in time      question ─▶ process ─▶ answer
//   not in time  all that waits fails, the process is killed; until it has really gone, which may be never, whatever is
//                asked fails at once: so one process hangs, not one for each question

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { asError } from '../../../errors.js';
import { WitnessError } from '../../error.js';
import { checkDomain, checkWrite, type RegisterWitness } from '../../register.js';
import { limited } from '../limited.js';
import type { FileAnswer, FileQuestion } from './messages.js';

const PROGRAM = fileURLToPath(new URL('./process.js', import.meta.url));
const REQUEST_TIMEOUT_MS = 1000;
/** Questions that may wait: a host has fewer domains. */
const PENDING_MAX = 1024;

export interface FileWitnessOptions {
  /** It must exist, and not be a mount point but a directory in one. */
  readonly directory: string;
  /** Of one read or attempt. */
  readonly requestTimeoutMs?: number;
}

export function createFileWitness(options: FileWitnessOptions): RegisterWitness {
  return new FileWitness(options);
}

interface Pending {
  readonly resolve: (answer: FileAnswer) => void;
  readonly reject: (error: Error) => void;
  readonly limit: NodeJS.Timeout;
}

class FileWitness implements RegisterWitness {
  readonly name: string;
  readonly #directory: string;
  readonly #limitMs: number;
  readonly #closed = new AbortController();
  readonly #pending = new Map<number, Pending>();
  #child: ChildProcess | null = null;
  /** Was killed, and is still there. */
  #stuck: ChildProcess | null = null;
  #nextId = 0;

  constructor({ directory, requestTimeoutMs = REQUEST_TIMEOUT_MS }: FileWitnessOptions) {
    this.name = `directory ${directory}`;
    this.#directory = directory;
    this.#limitMs = requestTimeoutMs;
  }

  async read(domain: string, signal?: AbortSignal) {
    checkDomain(domain);
    const answer = await this.#ask({ domain, write: null }, signal);
    if (answer.kind !== 'read') throw failure(answer);
    return answer.register;
  }

  async compareAndSet(...given: Parameters<RegisterWitness['compareAndSet']>) {
    const [domain, expected, claim, token, signal] = given;
    const write = { expected, claim, token };
    checkWrite(domain, write);
    const answer = await this.#ask({ domain, write }, signal);
    if (answer.kind !== 'write') throw failure(answer);
    return answer.outcome;
  }

  close(): void {
    this.#closed.abort();
    const closed = new WitnessError('CLOSED', `${this.name} was closed`);
    this.#abandon(this.#child, closed);
  }

  /** Whoever does not wait for the answer leaves the question under way, with its limit. */
  #ask(question: Pick<FileQuestion, 'domain' | 'write'>, signal?: AbortSignal): Promise<FileAnswer> {
    // The limit proper is that of the question, which kills; this one is never reached.
    const options = { name: this.name, limitMs: 2 * this.#limitMs, signal, closed: this.#closed.signal };
    return limited(
      options,
      () => new Promise((resolve, reject) => this.#send(question, { resolve, reject })),
    );
  }

  #send(question: Pick<FileQuestion, 'domain' | 'write'>, waiting: Omit<Pending, 'limit'>): void {
    if (this.#stuck !== null || this.#pending.size >= PENDING_MAX) {
      waiting.reject(this.#timeout('what was asked before still hangs'));
      return;
    }
    let child: ChildProcess;
    try {
      child = this.#child ?? this.#start();
    } catch (cause) {
      const message = 'the process that works in the directory cannot be started';
      waiting.reject(new WitnessError('UNREACHABLE', message, {}, { cause }));
      return;
    }
    const id = this.#nextId++;
    const limit = setTimeout(() => this.#abandon(child, this.#timeout('it does not answer')), this.#limitMs);
    this.#pending.set(id, { ...waiting, limit });
    const sent: FileQuestion = { id, directory: this.#directory, ...question };
    child.send(sent, (error) => {
      if (error !== null) this.#ended(child, error.message);
    });
  }

  #start(): ChildProcess {
    const child = fork(PROGRAM, [], {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      execArgv: [],
      detached: true, // what a terminal sends to us is not for it
    });
    this.#child = child;
    child.on('message', (answer: FileAnswer) => this.#take(answer)?.resolve(answer));
    child.on('error', (error) => this.#ended(child, error.message));
    child.on('exit', (code, signal) => this.#ended(child, signal ?? `exit code ${code ?? 0}`));
    // What waits for it keeps us by its limit.
    child.unref();
    child.channel?.unref();
    return child;
  }

  /** All that it was asked fails with this; it goes when it can. */
  #abandon(child: ChildProcess | null, error: WitnessError): void {
    if (child !== null && child === this.#child) {
      this.#child = null;
      this.#stuck = child;
      child.kill('SIGKILL');
      if (child.connected) child.disconnect();
    }
    for (const id of [...this.#pending.keys()]) this.#take({ id })?.reject(error);
  }

  #ended(child: ChildProcess, how: string): void {
    if (this.#stuck === child) this.#stuck = null;
    if (this.#child !== child) return;
    this.#child = null;
    const cause = `the process that works in the directory has ended: ${how}`;
    const error = new WitnessError('UNREACHABLE', cause, { directory: this.#directory });
    for (const id of [...this.#pending.keys()]) this.#take({ id })?.reject(error);
  }

  #take({ id }: { readonly id: number }): Pending | undefined {
    const pending = this.#pending.get(id);
    clearTimeout(pending?.limit);
    this.#pending.delete(id);
    return pending;
  }

  #timeout(why: string): WitnessError {
    const facts = { directory: this.#directory, limitMs: this.#limitMs };
    return new WitnessError('TIMEOUT', `no answer of ${this.name} in time: ${why}`, facts);
  }
}

function failure(answer: FileAnswer): Error {
  if (answer.kind === 'error') return new WitnessError(answer.code, answer.message, answer.facts);
  return asError(`an answer to another question: ${answer.kind}`);
}
