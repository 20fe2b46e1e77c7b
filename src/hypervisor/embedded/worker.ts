// The thread that a machine lives in: it takes calls, carries them out between two slices of the guest, and answers.
//
//   created ──start──▶ running ◀──resume── suspended        ended: the guest halted, or v86 failed; every call then
//                         │  └────suspend────▲              fails with DOMAIN_GONE
//                         └──▶ ended
//
// The guest's serial output is gathered and sent once per turn of the event loop, and before the answer to suspend.

import { parentPort, workerData } from 'node:worker_threads';
import { asError } from '../../errors.js';
import { valueAt } from '../../stream/bounds.js';
import { PAGE_SIZE } from '../../stream/format.js';
import { Bitmap } from '../bitmap.js';
import { HypervisorError, failed, type DomainState } from '../port.js';
import { diskHandlers } from './disk-handlers.js';
import { Machine, v86Version } from './machine.js';
import {
  SLOT_PAGES,
  handedOver,
  type CallMessage,
  type CallName,
  type Calls,
  type ErrorMessage,
  type WorkerMessage,
  type WorkerStart,
} from './messages.js';
import { DirtyScan, copyPageWords } from './scan.js';

const WORDS_PER_PAGE = PAGE_SIZE / 4;
const OUTPUT_BYTES_MIN = 4096;
/** Serial input that may wait, here and in the guest's serial port. */
const INPUT_BYTES_MAX = 64 * 1024;

type State = Extract<DomainState, 'created' | 'running' | 'suspended'> | 'ended';
type Send = (message: WorkerMessage, handedOver?: readonly ArrayBuffer[]) => void;
type Handlers = { [K in CallName]: (argument: Calls[K]['argument']) => Calls[K]['result'] };

class MachineWorker {
  readonly #send: Send;
  readonly #staging: Uint32Array;
  readonly #frames: Uint32Array;
  readonly #bitmapWords: Uint32Array;
  readonly #needsContext: boolean;
  readonly #slabs = new Map<number, Uint32Array>();
  #machine: Machine | null = null;
  #state: State = 'created';
  /** What a created machine stands at, if it stands at something. */
  #context: Uint8Array | null = null;
  #dirtyScan: DirtyScan | null = null;
  #output = new Uint8Array(OUTPUT_BYTES_MIN);
  #outputLength = 0;
  #heldInput: Uint8Array[] = [];
  #heldInputBytes = 0;

  constructor(start: WorkerStart, send: Send) {
    this.#send = send;
    this.#staging = new Uint32Array(start.shared.staging);
    this.#frames = new Uint32Array(start.shared.frames);
    this.#bitmapWords = new Uint32Array(start.shared.bitmap);
    this.#needsContext = start.spec.empty;
  }

  async create(start: WorkerStart): Promise<void> {
    this.#machine = await Machine.create(start, {
      output: (byte) => this.#putOutput(byte),
      halted: () => this.#end({ kind: 'shutdown' }),
      // A triple fault is one way to get here: v86 has no answer to it but to trap.
      crashed: (error) => this.#end({ kind: 'crashed', reason: `v86 failed: ${error.message}` }),
      pressed: () => this.#send({ kind: 'pressure' }),
    });
  }

  get isDiskBlank(): boolean {
    return this.#machine?.disk?.isBlank() === true;
  }

  /** Runs the call and answers it. */
  answer<K extends CallName>(call: CallMessage<K>): void {
    try {
      if (this.#state === 'ended') throw new HypervisorError('DOMAIN_GONE', 'the domain has ended');
      const result = this.#handlers[call.name](call.argument);
      this.#send({ kind: 'result', id: call.id, result }, handedOver(result));
    } catch (error) {
      this.#send({ kind: 'failed', id: call.id, error: toMessage(error) });
    }
  }

  readonly #handlers: Handlers = {
    start: () => {
      this.#require('start', 'created');
      if (this.#needsContext && !this.#context) {
        throw new HypervisorError('WRONG_STATE', 'the domain has no context to start from');
      }
      this.#go();
    },
    suspend: () => {
      this.#require('suspend', 'running');
      this.#theMachine.stop();
      this.#state = 'suspended';
      this.#flushOutput();
    },
    resume: () => {
      this.#require('resume', 'suspended');
      this.#go();
    },
    input: (bytes) => {
      const waiting = this.#theMachine.pendingInput + this.#heldInputBytes;
      if (waiting + bytes.length > INPUT_BYTES_MAX) {
        const facts = { waiting, length: bytes.length, limit: INPUT_BYTES_MAX };
        throw failed('the domain does not read its serial input', facts);
      }
      if (this.#state === 'running') {
        this.#theMachine.input(bytes);
      } else {
        // A machine that is stopped does not change: what comes in waits until it runs.
        this.#heldInput.push(bytes);
        this.#heldInputBytes += bytes.length;
      }
    },
    enableLogDirty: () => {
      if (this.#dirtyScan) throw new HypervisorError('LOG_DIRTY', 'log-dirty is enabled already');
      this.#dirtyScan = new DirtyScan(this.#theMachine.ram());
    },
    scan: ({ clean }) => {
      if (!this.#dirtyScan) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
      const ram = this.#theMachine.ram();
      const bitmap = new Bitmap(ram.octets.length / PAGE_SIZE, { words: this.#bitmapWords });
      return this.#dirtyScan.scan(ram, bitmap, clean);
    },
    disableLogDirty: () => {
      if (!this.#dirtyScan) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
      this.#dirtyScan = null;
    },
    copy: ({ frames, slab, offset, memory }) => {
      if (memory) this.#slabs.set(slab, new Uint32Array(memory));
      const words = this.#slabs.get(slab);
      if (!words) throw failed('a slab that was never named', { slab });
      this.#copyOut(frames, words, offset / 4);
    },
    copyToStaging: ({ frames }) => {
      this.#copyOut(frames, this.#staging, 0);
    },
    forgetSlab: (slab) => {
      this.#slabs.delete(slab);
    },
    saveContext: () => {
      if (this.#state === 'created' && this.#context) return this.#context;
      this.#require('context', 'suspended');
      return this.#theMachine.saveContext();
    },
    restoreContext: (context) => {
      this.#require('context', 'created');
      this.#context = null;
      this.#theMachine.restoreContext(context);
      this.#context = context;
    },
    write: ({ slot, count }) => {
      this.#require('write', 'created');
      const ram = this.#theMachine.ram().words;
      const first = slot * SLOT_PAGES;
      for (let k = first; k < first + count; k++) {
        copyPageWords(this.#staging, k * WORDS_PER_PAGE, ram, valueAt(this.#frames, k) * WORDS_PER_PAGE);
      }
    },
    compare: ({ slot, count }) => {
      const ram = this.#theMachine.ram().octets;
      const staging = Buffer.from(this.#staging.buffer);
      const differ: number[] = [];
      for (let k = 0; k < count; k++) {
        const at = (slot * SLOT_PAGES + k) * PAGE_SIZE;
        const ramAt = valueAt(this.#frames, slot * SLOT_PAGES + k) * PAGE_SIZE;
        if (ram.compare(staging, at, at + PAGE_SIZE, ramAt, ramAt + PAGE_SIZE) !== 0) differ.push(k);
      }
      return differ;
    },
    clear: (frame) => {
      this.#require('clear', 'created');
      this.#theMachine.ram().octets.fill(0, frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
    },
    ...diskHandlers(
      () => this.#theMachine.disk,
      (call) => this.#require(call, 'created'),
    ),
  };

  get #theMachine(): Machine {
    if (!this.#machine) throw failed('the machine is not made yet');
    return this.#machine;
  }

  #require(call: string, state: State): void {
    if (this.#state === state) return;
    const facts = { call, state: this.#state };
    throw new HypervisorError('WRONG_STATE', `the domain is ${this.#state}, not ${state}`, facts);
  }

  #go(): void {
    const machine = this.#theMachine;
    this.#state = 'running';
    this.#context = null;
    for (const bytes of this.#heldInput) machine.input(bytes);
    this.#heldInput = [];
    this.#heldInputBytes = 0;
    machine.run();
  }

  #copyOut(frames: Uint32Array, to: Uint32Array, at: number): void {
    const ram = this.#theMachine.ram().words;
    for (let k = 0; k < frames.length; k++) {
      copyPageWords(ram, valueAt(frames, k) * WORDS_PER_PAGE, to, at + k * WORDS_PER_PAGE);
    }
  }

  #end(message: WorkerMessage): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#flushOutput();
    this.#send(message);
  }

  #putOutput(byte: number): void {
    if (this.#outputLength === 0) setImmediate(() => this.#flushOutput());
    if (this.#outputLength === this.#output.length) {
      const grown = new Uint8Array(this.#output.length * 2);
      grown.set(this.#output);
      this.#output = grown;
    }
    this.#output[this.#outputLength++] = byte;
  }

  #flushOutput(): void {
    if (this.#outputLength === 0) return;
    this.#send({ kind: 'output', bytes: this.#output.slice(0, this.#outputLength) });
    this.#outputLength = 0;
  }
}

function toMessage(thrown: unknown): ErrorMessage {
  const error = asError(thrown);
  const cause = error.cause instanceof Error ? { cause: error.cause.message } : {};
  if (error instanceof HypervisorError) {
    return { code: error.code, message: error.message, facts: error.facts, ...cause };
  }
  return { code: 'FAILED', message: error.message, facts: {}, ...cause };
}

async function main(): Promise<void> {
  if (!parentPort) throw new Error('this file is the entry of a worker thread');
  const port = parentPort;
  const send: Send = (message, buffers = []) => port.postMessage(message, buffers);
  const start = workerData as WorkerStart;
  const worker = new MachineWorker(start, send);
  try {
    await worker.create(start);
  } catch (error) {
    send({ kind: 'refused', error: toMessage(error) });
    return;
  }
  port.on('message', (call: CallMessage) => worker.answer(call));
  send({ kind: 'ready', version: await v86Version(), isDiskBlank: worker.isDiskBlank });
}

await main();
