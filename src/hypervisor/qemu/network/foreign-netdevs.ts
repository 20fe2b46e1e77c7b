// Netdevs that somebody adds to a QEMU of ours: what leaves by them is held by nobody. A card is heard only when it is
// plugged into a netdev, and its guest has found a driver for it, so a netdev is unplugged as soon as it is seen, with or
// without a card, and stays so until it is named in the configuration. The same becomes of a netdev of ours whose filters
// somebody has taken away (as happens when it is removed, and added again).
//
//   netdev_add ─▶ device_add ─▶ the guest finds the card, its driver, its address ─▶ its first frame
//        └ seen within one look (machine-watch.ts) ─▶ set_link off ─▶ nobody hears it

import { gateFiltersOf } from './netdev-gate.js';
import { listFilters, listNetdevs } from './network-list.js';
import type { QmpClient } from '../monitor/qmp.js';

export class ForeignNetdevs {
  readonly #qmp: QmpClient;
  readonly #ours: ReadonlySet<string>;
  #unplugged: ReadonlySet<string> = new Set();

  constructor(qmp: QmpClient, ours: readonly string[]) {
    this.#qmp = qmp;
    this.#ours = new Set(ours);
  }

  /** `network`: what "info network" says. Returns what people should know of it. @throws as QmpClient.execute() */
  async unplug(network: string): Promise<readonly string[]> {
    const filters = new Set(listFilters(network));
    const isHeld = (name: string): boolean =>
      this.#ours.has(name) && gateFiltersOf(name).every((filter) => filters.has(filter));
    const foreign = listNetdevs(network).filter(({ name }) => !isHeld(name));
    if (foreign.length === 0 && this.#unplugged.size === 0) return [];
    // Again each time: one of that name may be another one by now.
    await Promise.all(
      this.#qmp.executeAll(foreign.map(({ name }) => ['set_link', { name, up: false }] as const)),
    );
    const news = foreign.filter(({ name }) => !this.#unplugged.has(name));
    this.#unplugged = new Set(foreign.map(({ name }) => name));
    return news.map(({ name, type }) =>
      this.#ours.has(name)
        ? `the netdev ${name} was unplugged, because its filters are gone: nothing holds its output; start Romulus again`
        : `the netdev ${name} (${type}) was unplugged, because nothing holds its output; to use it, add it to the ` +
          `configuration, on both sides ("network: [{ id: ${name}, … }]"), and start Romulus again`,
    );
  }

  /** Nobody's output is held any more: they are as they were. */
  async plug(): Promise<void> {
    const commands = [...this.#unplugged].map((name) => ['set_link', { name, up: true }] as const);
    await Promise.allSettled(this.#qmp.executeAll(commands)); // one may be gone by now
  }
}
