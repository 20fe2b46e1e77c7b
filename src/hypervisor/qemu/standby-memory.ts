// The memory of a domain that is restored, as long as nobody runs on it: given, written, compared, copied out. A QEMU that
// is started on it, or loads a state, resets the machine first, and with it what it was told to put into memory: who
// writes or reads then waits until that is put back (reset-frames.ts).
//
//   created ─ start ─▶ running ─▶ shutdown, crashed        destroyed, from anywhere

import { ReplaySubject } from 'rxjs';
import { InOrder } from '../../flow/in-order.js';
import { PAGE_SIZE } from '../../stream/format.js';
import { FlatFrames } from '../frames.js';
import { HypervisorError, hasEnded, type DomainEvent, type DomainState } from '../port.js';
import { pagesOf, type QemuConfig } from './config.js';
import { differingFrames } from './memory/ram-access.js';
import { ResetFrames } from './memory/reset-frames.js';
import type { ChosenTracking } from './memory/tracking.js';
import { DeviceStateOnly } from './state/device-state.js';

export abstract class StandbyMemory extends DeviceStateOnly {
  readonly events$ = new ReplaySubject<DomainEvent>(1);
  protected state: Extract<DomainState, 'created' | 'running' | 'shutdown' | 'crashed' | 'destroyed'> =
    'created';
  readonly memory: ChosenTracking;
  readonly reset: ResetFrames;
  protected readonly frames: FlatFrames;
  protected readonly work = new InOrder();
  readonly #name: string;

  constructor(config: QemuConfig, memory: ChosenTracking) {
    super();
    this.#name = config.name;
    this.memory = memory;
    this.reset = new ResetFrames(memory.tracking.ram);
    this.frames = new FlatFrames(pagesOf(config), { empty: true });
  }

  async populate(pfns: Uint32Array, count: number, gfns: Uint32Array): Promise<void> {
    this.requireCreated();
    this.frames.populate(pfns, count, gfns);
    return Promise.resolve();
  }

  writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    return this.work.do(async () => {
      this.requireCreated();
      this.frames.checkWrite(gfns, count, data);
      await this.#whileNobodyResets(async () => {
        await this.beforeWrite(gfns, count);
        await this.memory.tracking.ram.write(gfns, count, data);
      });
    });
  }

  async copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    return this.work.do(async () => {
      this.requireCreated();
      this.frames.checkRead(gfns, count, slab, offset);
      await this.#whileNobodyResets(() => this.memory.tracking.ram.read(gfns, count, slab, offset));
    });
  }

  async comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    this.requireAlive();
    this.frames.checkWrite(gfns, count, data);
    return differingFrames(this.memory.tracking.ram, gfns, count, data);
  }

  async clearPage(gfn: number): Promise<void> {
    await this.writePages(Uint32Array.of(gfn), 1, new Uint8Array(PAGE_SIZE));
  }

  /** @throws HypervisorError WRONG_STATE if it runs, or as requireAlive() */
  protected requireCreated(): void {
    this.requireAlive();
    if (this.state === 'created') return;
    const facts = { state: this.state, needed: 'created' };
    throw new HypervisorError('WRONG_STATE', `the domain is ${this.state}, not created`, facts);
  }

  /** @throws HypervisorError DOMAIN_GONE */
  protected requireAlive(): void {
    if (!hasEnded(this.state)) return;
    throw new HypervisorError('DOMAIN_GONE', `the domain is ${this.state}`, { name: this.#name });
  }

  protected end(event: DomainEvent): void {
    if (hasEnded(this.state)) return;
    this.state = event.kind;
    this.events$.next(event);
  }

  /** Resolves when no QEMU is being started or ended. */
  protected abstract seatSettled(): Promise<void>;
  /** The frames are about to be written. @throws HypervisorError FAILED */
  protected abstract beforeWrite(gfns: Uint32Array, count: number): Promise<void>;

  async #whileNobodyResets(work: () => Promise<void>): Promise<void> {
    if (this.reset.areKept) await this.seatSettled();
    await this.reset.whileWriting(work);
  }
}
