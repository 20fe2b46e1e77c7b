// Loading a device state into a stopped QEMU, in place and as often as one likes. RAM must be right before, and QEMU
// resets the machine first: what a reset writes into RAM (kernels and other images that QEMU was told to put there) is
// kept aside, and written again afterwards.
//
//   keep ─▶ put the state into the image ─▶ snapshot-load ─▶ (reset, devices, vCPUs) ─▶ write what was kept
//
// A state that QEMU cannot load is an error, and QEMU can load another one.

import { setTimeout as sleep } from 'node:timers/promises';
import { filter, firstValueFrom, map, takeWhile, toArray } from 'rxjs';
import { withinAwake } from '../../../flow/awake.js';
import { HypervisorError, failed, unsupported } from '../../port.js';
import { DEVICE_STATE_HEADER } from './device-state.js';
import { ignoreShared } from './full-state.js';
import type { StateParts } from './memory-section.js';
import type { QemuMachine } from '../machine.js';
import { isObject } from '../monitor/qmp-parser.js';
import type { ResetFrames } from '../memory/reset-frames.js';
import { SNAPSHOT, STATE_NODE, type StateImage } from './state-image.js';

/** A load takes 5 ms. A QEMU that takes so long does not answer at all. */
const TIMEOUT_MS = 3000;
const LAST_WORDS_MS = 50;

export class StateLoader {
  readonly #machine: QemuMachine;
  readonly #image: StateImage;
  #holds: StateParts | null = null;
  #loads = 0;
  /** A job that is over, and still in QEMU's list. */
  #over: string | null = null;
  #tidied: Promise<void> = Promise.resolve();

  /** @throws QmpError, HypervisorError DOMAIN_GONE or UNSUPPORTED */
  static async open(machine: QemuMachine): Promise<StateLoader> {
    const { qmp, stateImage } = machine;
    if (!stateImage) throw unsupported('this QEMU was not started as a standby');
    await qmp.execute(...ignoreShared(true));
    return new StateLoader(machine, stateImage);
  }

  private constructor(machine: QemuMachine, image: StateImage) {
    this.#machine = machine;
    this.#image = image;
  }

  /** The state that QEMU holds, and RAM is as it wants it. */
  get holds(): StateParts | null {
    return this.#holds;
  }

  /** RAM is about to change, which takes time. */
  forget(): void {
    this.#holds = null;
    if (this.#over === null) return;
    this.#tidied = this.tidy();
    this.#tidied.catch(() => undefined); // the next load fails with it
  }

  /**
   * `reset`: of the memory that QEMU runs on.
   * @throws HypervisorError BAD_CONTEXT (QEMU's reason), FAILED or DOMAIN_GONE: then RAM may not be put back before
   * this QEMU has ended
   */
  async load(state: StateParts, reset: ResetFrames): Promise<void> {
    const { memory, devices } = state;
    // Each time: a reset puts the ACPI tables back to what they were when QEMU was started.
    const sections = memory === null ? [devices] : [memory, devices];
    this.#image.put([DEVICE_STATE_HEADER, ...sections]);
    this.#holds = null;
    await reset.keep();
    await this.#job();
    await reset.putBack();
    this.#holds = state;
  }

  /** What the last load has left in QEMU: not done by itself, for that would be in the way of who takes over. @throws QmpError */
  async tidy(): Promise<void> {
    const id = this.#over;
    this.#over = null;
    if (id !== null) await this.#machine.qmp.execute('job-dismiss', { id });
  }

  async #job(): Promise<void> {
    const { qmp } = this.#machine;
    await this.#tidied;
    await this.tidy();
    const before = this.#machine.said.length;
    const id = `load-${++this.#loads}`;
    // One that fails is 'aborting' before it is 'concluded' (QEMU, job.c, job_update_rc).
    const statuses = firstValueFrom(
      qmp.events$.pipe(
        filter(({ name, data }) => name === 'JOB_STATUS_CHANGE' && data['id'] === id),
        map(({ data }) => data['status']),
        takeWhile((status) => status !== 'concluded', true),
        toArray(),
      ),
    );
    statuses.catch(() => undefined); // looked at below
    const where = { tag: SNAPSHOT, vmstate: STATE_NODE, devices: [STATE_NODE] };
    await qmp.execute('snapshot-load', { 'job-id': id, ...where }, TIMEOUT_MS);
    let passed: readonly unknown[];
    try {
      passed = await withinAwake(TIMEOUT_MS, statuses, () => new Error('it does not come to an end'));
    } catch (error) {
      throw failed('QEMU does not load the device state', { id }, error);
    }
    // They end with QEMU, too.
    if (passed.at(-1) !== 'concluded')
      throw failed('QEMU has ended while it loaded the device state', { id });
    this.#over = id;
    if (passed.includes('aborting')) await this.#refused(id, before);
  }

  /** @throws HypervisorError BAD_CONTEXT (QEMU's reason), or FAILED */
  async #refused(id: string, before: number): Promise<never> {
    const { qmp } = this.#machine;
    const jobs = await qmp.execute('query-jobs');
    await this.tidy();
    const job = Array.isArray(jobs) && (jobs as unknown[]).find((one) => isObject(one) && one['id'] === id);
    if (!isObject(job)) throw failed('QEMU does not know what it has loaded', { id });
    const reason = (await this.#lastWords(before)) ?? String(job['error']);
    throw new HypervisorError('BAD_CONTEXT', `QEMU does not take the device state: ${reason}`, { id });
  }

  /** QEMU says why on its standard error, which comes by another way than its answers. */
  async #lastWords(before: number): Promise<string | null> {
    for (let waited = 0; waited < LAST_WORDS_MS && this.#machine.said.length <= before; waited++)
      await sleep(1);
    const said = this.#machine.said.slice(before).trim();
    return said === '' ? null : said.replaceAll(/\s*\n\s*/g, '; ');
  }
}
