// QEMU's monitor as an object: commands are answered by promises, events are an Observable. Commands may overlap; those
// given to executeAll go out in one write, so that QEMU finds the second one waiting when it is done with the first.
//
//   QEMU  {"QMP": …}  ◀── greeting        {"execute": "qmp_capabilities"} ──▶  then commands, answers, events
//
// Whatever ends the connection (QEMU's death, nonsense on the socket, close()) rejects every command under way.

import { Duplex, type Readable, type Writable } from 'node:stream';
import { Subject, type Observable } from 'rxjs';
import { afterAwake, withinAwake } from '../../../flow/awake.js';
import { HypervisorError, failed } from '../../port.js';
import { QmpParser, type JsonObject, type QmpMessage, type QmpVersion } from './qmp-parser.js';

export interface QmpEvent {
  readonly name: string;
  readonly data: JsonObject;
}

export type QmpCommand = readonly [command: string, argument?: JsonObject];

/**
 * A connection with a stream for each direction. That the other side does not read any more is told by the end of what
 * it says, not before: the last that it said is heard.
 */
export interface QmpStreams {
  readonly readable: Readable;
  readonly writable: Writable;
}

/** QEMU refused a command: `facts` name it, and QEMU's class and description of the error. */
export class QmpError extends HypervisorError {
  readonly command: string;
  readonly errorClass: string;
  readonly description: string;

  constructor(command: string, errorClass: string, description: string) {
    const code = errorClass === 'CommandNotFound' ? 'UNSUPPORTED' : 'FAILED';
    super(code, `QEMU refused ${command}: ${description}`, { command, class: errorClass, description });
    this.command = command;
    this.errorClass = errorClass;
    this.description = description;
  }
}

interface Pending<T = unknown> {
  readonly command: string;
  readonly resolve: (value: T) => void;
  readonly reject: (error: HypervisorError) => void;
  /** Its time is not limited any more. */
  readonly cancel: () => void;
}

const TIMEOUT_MS = 10_000;

export class QmpClient {
  readonly #readable: Readable;
  readonly #writable: Writable;
  #timeoutMs: number;
  readonly #parser = new QmpParser();
  readonly #pending = new Map<number, Pending>();
  readonly #events = new Subject<QmpEvent>();
  /** Commands whose time was over: their answers, should they come, are nobody's. */
  readonly #late = new Set<number>();
  #nextId = 0;
  #greeted: Pick<Pending<QmpVersion>, 'resolve' | 'reject'> | null = null;
  #version: QmpVersion = { major: 0, minor: 0, micro: 0, package: '' };
  #end: HypervisorError | null = null;

  /**
   * Takes over a connected stream, or one for each direction; resolves when QEMU takes commands. If it fails, they are
   * destroyed. `timeoutMs`: for the greeting, and for each command.
   * @throws HypervisorError FAILED (no greeting in time, nonsense) or DOMAIN_GONE (closed)
   */
  static async open(stream: Duplex | QmpStreams, timeoutMs = TIMEOUT_MS): Promise<QmpClient> {
    const client = new QmpClient(stream, timeoutMs);
    try {
      client.#version = await client.#greeting();
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  private constructor(stream: Duplex | QmpStreams, timeoutMs: number) {
    const { readable, writable } = stream instanceof Duplex ? { readable: stream, writable: stream } : stream;
    this.#readable = readable;
    this.#writable = writable;
    this.#timeoutMs = timeoutMs;
    readable.on('data', (chunk: Buffer) => this.#receive(chunk));
    readable.on('error', (error) => this.#finish(lost(error)));
    readable.on('close', () => this.#finish(lost()));
    readable.on('end', () => this.#finish(lost()));
    if (!(stream instanceof Duplex)) writable.on('error', () => undefined); // see QmpStreams
  }

  get version(): QmpVersion {
    return this.#version;
  }

  /** From now on a command has this time, whatever it was before. */
  limit(timeoutMs = TIMEOUT_MS): void {
    this.#timeoutMs = timeoutMs;
  }

  /** Hot; completes when the connection has ended. */
  get events$(): Observable<QmpEvent> {
    return this.#events;
  }

  /** @throws QmpError, HypervisorError FAILED (no answer in time) or DOMAIN_GONE (no connection any more) */
  execute(command: string, argument?: JsonObject, timeoutMs?: number): Promise<unknown> {
    const { promise, line } = this.#prepare(command, argument, timeoutMs);
    this.#write(line);
    return promise;
  }

  /** In one write. Each promise must be looked at by the caller. */
  executeAll(commands: readonly QmpCommand[]): Promise<unknown>[] {
    const prepared = commands.map(([command, argument]) => this.#prepare(command, argument));
    this.#write(prepared.map(({ line }) => line).join(''));
    return prepared.map(({ promise }) => promise);
  }

  /** One of QEMU's human commands: the text that it answers. */
  async human(commandLine: string): Promise<string> {
    const answer = await this.execute('human-monitor-command', { 'command-line': commandLine });
    return String(answer);
  }

  /** May be called twice. */
  close(): void {
    this.#finish(new HypervisorError('DOMAIN_GONE', 'the monitor connection was closed'));
  }

  #prepare(command: string, argument: JsonObject | undefined, timeoutMs = this.#timeoutMs) {
    if (this.#end) return { promise: Promise.reject(this.#end), line: '' };
    const id = this.#nextId++;
    const promise = new Promise<unknown>((resolve, reject) => {
      const cancel = afterAwake(timeoutMs, () => {
        this.#pending.delete(id);
        this.#late.add(id);
        reject(failed(`QEMU did not answer ${command} in time`, { command, timeoutMs }));
      });
      this.#pending.set(id, { command, resolve, reject, cancel });
    });
    return { promise, line: `${JSON.stringify({ execute: command, arguments: argument, id })}\n` };
  }

  #write(text: string): void {
    if (!this.#end && text !== '') this.#writable.write(text);
  }

  #greeting(): Promise<QmpVersion> {
    const greeted = new Promise<QmpVersion>((resolve, reject) => (this.#greeted = { resolve, reject }));
    const timeoutMs = this.#timeoutMs;
    return withinAwake(timeoutMs, greeted, () => failed('QEMU did not greet in time', { timeoutMs }));
  }

  #receive(chunk: Buffer): void {
    if (this.#end) return;
    try {
      for (const message of this.#parser.push(chunk)) this.#take(message);
    } catch (error) {
      const known = error instanceof HypervisorError;
      this.#finish(known ? error : failed('the monitor connection failed', {}, error));
    }
  }

  #take(message: QmpMessage): void {
    switch (message.kind) {
      case 'greeting':
        this.#greeted?.resolve(message.version);
        this.#greeted = null;
        break;
      case 'event':
        this.#events.next({ name: message.name, data: message.data });
        break;
      case 'result':
        this.#settle(message.id)?.resolve(message.value);
        break;
      case 'error': {
        const pending = message.id === null ? undefined : this.#settle(message.id);
        if (pending) {
          pending.reject(new QmpError(pending.command, message.errorClass, message.description));
        } else if (message.id === null) {
          throw failed('QEMU could not read what we sent', { description: message.description });
        }
        break;
      }
    }
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (!pending) {
      if (this.#late.delete(id)) return undefined;
      throw failed('QEMU answered a command that was never given', { id });
    }
    this.#pending.delete(id);
    pending.cancel();
    return pending;
  }

  #finish(error: HypervisorError): void {
    if (this.#end) return;
    this.#end = error;
    this.#greeted?.reject(error);
    this.#greeted = null;
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, cancel } of waiting) {
      cancel();
      reject(error);
    }
    this.#readable.destroy();
    this.#writable.destroy();
    this.#events.complete();
  }
}

function lost(cause?: Error): HypervisorError {
  return new HypervisorError('DOMAIN_GONE', 'the connection to QEMU’s monitor is lost', {}, { cause });
}
