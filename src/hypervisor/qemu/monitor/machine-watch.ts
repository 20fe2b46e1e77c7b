// Is it still the machine that the standby was compared with? An operator may plug in a device, a card, memory; the
// standby has none of it, and would not understand the next device state. Four ways to notice, none of them dear:
//
//   at each checkpoint    the sections of its device state are those of one before (state-sections.ts)
//   at QEMU's events      a device has gone, memory has another size, a card has been set up
//   every NETWORK_MS      the netdevs: one that is not ours is unplugged (foreign-netdevs.ts)
//   every MACHINE_MS      devices and memory blocks, as QEMU lists them: not all of them have a section
//
// Any of these leads to the inventory, taken anew, which alone decides: only if that differs is it another machine.
// QEMU 7.2 says nothing when something is added.

import { ReplaySubject, Subject } from 'rxjs';
import { asError } from '../../../errors.js';
import { monotonicMs } from '../../../flow/clock.js';
import { compareInventories, describeDifference, inventoryText, type Inventory } from '../../inventory.js';
import { HypervisorError, type MachineChange } from '../../port.js';
import { disksNow, type FoundDisks } from '../disks/find.js';
import { ForeignNetdevs } from '../network/foreign-netdevs.js';
import { listBlocks, listDevices, takeInventory } from './inventory.js';
import type { QmpClient, QmpEvent } from './qmp.js';
import { whyBlocked } from './saveable.js';
import { StateSections } from '../state/state-sections.js';

const NETWORK_MS = 50;
const MACHINE_MS = 1000;
/** Lists of sections that are known to be of this machine: some devices have one at times only. */
const KNOWN_MAX = 8;
const WARNINGS_KEPT = 16;

const MACHINE_EVENTS: ReadonlySet<string> = new Set([
  ...['DEVICE_DELETED', 'MEMORY_DEVICE_SIZE_CHANGE', 'ACPI_DEVICE_OST'],
  'DEVICE_TRAY_MOVED', // a medium that may be written to
]);
/** A guest's driver sets up a card: before the card sends anything. */
const NETWORK_EVENT = 'NIC_RX_FILTER_CHANGED';

export interface WatchOptions {
  readonly qmp: QmpClient;
  /** The name of guest RAM's block. */
  readonly ram: string;
  readonly inventory: Inventory;
  /** Netdevs whose output is held. */
  readonly netdevs: readonly string[];
  /** That are replicated, as long as they are what they were. */
  readonly disks: FoundDisks;
  /** QEMU may be asked now without making a pause longer. */
  readonly idle: () => boolean;
}

export class MachineWatch {
  readonly changes$ = new Subject<MachineChange>();
  readonly warnings$ = new ReplaySubject<string>(WARNINGS_KEPT);
  readonly #options: WatchOptions;
  readonly #foreign: ForeignNetdevs;
  #inventory: Inventory;
  #known: StateSections[] = [];
  /** Devices and blocks, as last listed. */
  #listed: string | null = null;
  #taking: Promise<MachineChange | null> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #listedAt = 0;
  #ended = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#inventory = options.inventory;
    this.#foreign = new ForeignNetdevs(options.qmp, options.netdevs);
    options.qmp.events$.subscribe((event) => this.#hear(event));
  }

  get inventory(): Inventory {
    return this.#inventory;
  }

  /** Looks once, and goes on looking until end(). @throws as QmpClient.execute() */
  async begin(): Promise<void> {
    await this.#look();
    this.#again();
  }

  /** Begins, of a machine that has not been looked at since its inventory was taken: it may be another one by now. */
  keepLooking(): void {
    this.#listed ??= '';
    this.#again();
  }

  end(): void {
    this.#ended = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.changes$.complete();
    this.warnings$.complete();
  }

  /** Takes back what was done to other people's netdevs. */
  plug(): Promise<void> {
    return this.#foreign.plug();
  }

  /** A device state is of this machine. @throws HypervisorError MACHINE_CHANGED, or as QmpClient.execute() */
  async confirm(state: Uint8Array): Promise<void> {
    if (this.#known.some((sections) => sections.match(state))) return;
    await this.reconsider();
    this.#known = [StateSections.of(state), ...this.#known].slice(0, KNOWN_MAX);
  }

  /** Takes the inventory anew. @throws HypervisorError MACHINE_CHANGED if it is another one, or as QmpClient.execute() */
  async reconsider(): Promise<void> {
    this.#taking ??= this.#take().finally(() => (this.#taking = null));
    const change = await this.#taking;
    if (change !== null) throw new HypervisorError('MACHINE_CHANGED', change.message);
  }

  async #take(): Promise<MachineChange | null> {
    const { qmp, ram } = this.#options;
    const blocked = await whyBlocked(qmp);
    const { disks, others } = await disksNow(qmp, this.#options.disks);
    const inventory: Inventory = {
      ...(await takeInventory(qmp, ram, disks)),
      ...(others.length > 0 && { 'disks that are not replicated': inventoryText(others) }),
      ...(blocked !== null && { 'cannot be saved': blocked }),
    };
    // What was, is what the standby is.
    const differences = compareInventories(inventory, this.#inventory);
    if (differences.length === 0 || this.#ended) return null;
    const change = {
      inventory,
      message: `the machine has changed: ${differences.map(describeDifference).join('; ')}`,
    };
    this.#inventory = inventory;
    this.#known = [];
    this.changes$.next(change);
    return change;
  }

  async #look(): Promise<void> {
    const { qmp, ram } = this.#options;
    for (const warning of await this.#foreign.unplug(await qmp.human('info network'))) {
      this.warnings$.next(warning);
    }
    const now = monotonicMs();
    if (now - this.#listedAt < MACHINE_MS) return;
    this.#listedAt = now;
    const [tree, blocks] = await Promise.all([qmp.human('info qtree'), qmp.human('info ramblock')]);
    const listed = [...listDevices(tree), '', ...listBlocks(blocks, ram)].join('\n');
    const changed = this.#listed !== null && this.#listed !== listed;
    this.#listed = listed;
    if (changed) await this.reconsider();
  }

  #again(): void {
    if (this.#ended) return;
    this.#timer = setTimeout(() => {
      const look = this.#options.idle() ? this.#look() : Promise.resolve();
      look.catch((error: unknown) => this.#failed(error)).finally(() => this.#again());
    }, NETWORK_MS);
  }

  #hear({ name }: QmpEvent): void {
    if (this.#ended) return;
    const looking =
      name === NETWORK_EVENT ? this.#look() : MACHINE_EVENTS.has(name) ? this.reconsider() : null;
    looking?.catch((error: unknown) => this.#failed(error));
  }

  /** A change was told as such; QEMU's end, and that it hangs, are told by those who have more to do with it. */
  #failed(error: unknown): void {
    const { message } = asError(error);
    const code = error instanceof HypervisorError ? error.code : null;
    if (this.#ended || code === 'MACHINE_CHANGED' || code === 'DOMAIN_GONE') return;
    this.warnings$.next(`the machine cannot be watched: ${message}`);
  }
}
