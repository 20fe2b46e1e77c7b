// A QEMU domain that is restored: a warm standby. QEMU is there, waiting for its device state; checkpoints are written
// into its RAM file and the last device state is kept. Taking over is loading that state, and running.
//
//   created ──populate, writePages, setEmulatorContext──▶ … ──start──▶ a domain that runs, and can be saved in its turn
//
// A standby whose QEMU dies reports 'crashed' like any other domain; it can be replaced and filled again.

import { setTimeout as sleep } from 'node:timers/promises';
import { firstValueFrom, filter, map } from 'rxjs';
import { asError } from '../../errors.js';
import { INVALID_FRAME, PAGE_SIZE } from '../../stream/format.js';
import { Bitmap } from '../bitmap.js';
import { HypervisorError, type CpuPolicy, type HvmParam, type TargetDomain, type TscInfo } from '../port.js';
import { Fd } from './config.js';
import { checkDeviceState } from './device-state.js';
import type { QemuMachine } from './machine.js';
import { readFrames, writeFrames } from './ram-file.js';
import { QemuSource } from './source.js';

/** Pages that are compared at a time. */
const COMPARE_PAGES = 256;
const TAKEOVER_TIMEOUT_MS = 30_000;
const LAST_WORDS_MS = 2000;

/** A few announcements, a little apart, for switches that were looking away. */
const ANNOUNCEMENT = { initial: 50, max: 550, rounds: 5, step: 100 };

export class QemuTarget extends QemuSource implements TargetDomain {
  readonly #populated: Bitmap;
  #context: Uint8Array | null = null;

  /** The machine was launched as a standby. */
  static async open(machine: QemuMachine): Promise<QemuTarget> {
    const target = new QemuTarget(machine);
    try {
      await machine.qmp.execute('migrate-set-capabilities', {
        capabilities: [
          { capability: 'x-ignore-shared', state: true },
          { capability: 'events', state: true },
        ],
      });
      return target;
    } catch (error) {
      await target.destroy();
      throw error;
    }
  }

  private constructor(machine: QemuMachine) {
    super(machine);
    this.#populated = new Bitmap(this.p2mSize);
  }

  async populate(pfns: Uint32Array, count: number, gfns: Uint32Array): Promise<void> {
    this.requireGuest();
    this.checkFrames(pfns, count);
    for (let k = 0; k < count; k++) {
      const pfn = pfns[k] ?? INVALID_FRAME;
      this.#populated.set(pfn);
      gfns[k] = pfn;
    }
    return Promise.resolve();
  }

  async writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    this.require('created');
    this.#check(gfns, count, data);
    writeFrames(this.machine.tracking.ramFd, gfns, count, data);
    return Promise.resolve();
  }

  async comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    this.requireGuest();
    this.#check(gfns, count, data);
    const differ: number[] = [];
    const held = Buffer.alloc(COMPARE_PAGES * PAGE_SIZE);
    for (let from = 0; from < count; from += COMPARE_PAGES) {
      const pages = Math.min(COMPARE_PAGES, count - from);
      readFrames(this.machine.tracking.ramFd, gfns.subarray(from, from + pages), pages, held, 0);
      for (let k = 0; k < pages; k++) {
        const at = k * PAGE_SIZE;
        const dataAt = (from + k) * PAGE_SIZE;
        if (held.compare(data, dataAt, dataAt + PAGE_SIZE, at, at + PAGE_SIZE) !== 0) differ.push(from + k);
      }
    }
    return Promise.resolve(differ);
  }

  async clearPage(gfn: number): Promise<void> {
    await this.writePages(Uint32Array.of(gfn), 1, new Uint8Array(PAGE_SIZE));
  }

  /** The vCPUs come with the device state (see setEmulatorContext). */
  setHvmContext(): Promise<void> {
    return Promise.reject(new HypervisorError('UNSUPPORTED', 'A QEMU domain has no HVM context of its own.'));
  }

  /** Keeps the device state to start from. Fails with BAD_CONTEXT if it is none. */
  async setEmulatorContext(context: Uint8Array): Promise<void> {
    this.require('created');
    checkDeviceState(context);
    this.#context = new Uint8Array(context);
    this.inheritRunState(context);
    return Promise.resolve();
  }

  override emulatorContext(): Promise<Uint8Array> {
    if (this.state === 'created' && this.#context) return Promise.resolve(new Uint8Array(this.#context));
    return super.emulatorContext();
  }

  setHvmParam(param: HvmParam): Promise<void> {
    return Promise.reject(
      new HypervisorError('UNSUPPORTED', 'A QEMU domain has no HVM parameters.', {
        index: param.index,
        value: param.value,
      }),
    );
  }

  setTscInfo(info: TscInfo): Promise<void> {
    if (info.mode === 0) return Promise.resolve();
    return Promise.reject(
      new HypervisorError('UNSUPPORTED', 'A QEMU domain knows TSC mode 0 only.', { mode: info.mode }),
    );
  }

  setCpuPolicy(policy: CpuPolicy): Promise<void> {
    if (policy.cpuid.length === 0 && policy.msrs.length === 0) return Promise.resolve();
    return Promise.reject(
      new HypervisorError('UNSUPPORTED', 'A QEMU domain has no CPU policy of its own.', {
        cpuid: policy.cpuid.length,
        msrs: policy.msrs.length,
      }),
    );
  }

  /** Takes over: QEMU loads the device state, and runs. */
  override async start(): Promise<void> {
    this.require('created');
    const context = this.#context;
    if (!context) throw new HypervisorError('WRONG_STATE', 'The domain has no context to start from.');
    try {
      await this.#load(context);
      this.#context = null;
      await super.start();
    } catch (error) {
      if (!(error instanceof HypervisorError) || error.code !== 'DOMAIN_GONE') throw error;
      const reason = await this.#lastWords('its monitor is gone');
      throw new HypervisorError(
        'DOMAIN_GONE',
        `The standby ended while it took over: ${reason}`,
        {},
        { cause: error },
      );
    }
  }

  async announce(): Promise<void> {
    await this.machine.qmp.execute('announce-self', ANNOUNCEMENT);
  }

  /** QEMU is about to end, or has ended: why. */
  #lastWords(otherwise: string): Promise<string> {
    return Promise.race([this.machine.gone, sleep(LAST_WORDS_MS, otherwise, { ref: false })]);
  }

  async #load(context: Uint8Array): Promise<void> {
    const { qmp, incoming } = this.machine;
    if (!incoming) throw new HypervisorError('UNSUPPORTED', 'This QEMU was not started as a standby.');
    const loaded = firstValueFrom(
      qmp.events$.pipe(
        filter(({ name }) => name === 'MIGRATION'),
        map(({ data }) => String(data['status'])),
        filter((status) => status === 'completed' || status === 'failed'),
      ),
      { defaultValue: 'lost' },
    );
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('late'), TAKEOVER_TIMEOUT_MS);
    });
    try {
      const accepted = qmp.execute('migrate-incoming', { uri: `fd:${Fd.INCOMING}` });
      incoming.end(context);
      await accepted;
      const status = await Promise.race([loaded, late]);
      if (status === 'completed') return;
      // QEMU ends over a state that it cannot load, and says why.
      const reason = await this.#lastWords(`the load is ${status}`);
      throw new HypervisorError('BAD_CONTEXT', `QEMU does not take the device state: ${reason}`, {
        length: context.length,
      });
    } catch (error) {
      if (error instanceof HypervisorError) throw error;
      throw new HypervisorError('FAILED', 'The standby could not take over.', {}, { cause: asError(error) });
    } finally {
      clearTimeout(timer);
    }
  }

  #check(gfns: Uint32Array, count: number, data: Uint8Array): void {
    this.checkFrames(gfns, count);
    for (let k = 0; k < count; k++) {
      const gfn = gfns[k] ?? INVALID_FRAME;
      if (!this.#populated.has(gfn)) {
        throw new HypervisorError('NOT_POPULATED', 'The frame was never populated.', { gfn });
      }
    }
    if (data.length < count * PAGE_SIZE) {
      throw new HypervisorError('FAILED', 'There are fewer pages than frames.', {
        count,
        length: data.length,
      });
    }
  }
}
