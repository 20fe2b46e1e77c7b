// The disks of a trial: what the standby's images held at one moment, elsewhere (moment.ts). They end with the images that
// they are of: whoever closes those has better things to do.

import type { InOrder } from '../../../../flow/in-order.js';
import { HypervisorError } from '../../../port.js';
import type { LocalDisk } from '../drives.js';
import type { NbdPlace } from '../trial-drives.js';
import type { Images } from './images.js';
import { trialExport } from './moment.js';

export interface TrialDisksOptions {
  readonly local: readonly LocalDisk[];
  /** In which what is done to the images is done. */
  readonly order: InOrder;
  /** The images; null: those of no checkpoint, or none. */
  readonly images: () => Images | null;
  /** They are as of a checkpoint now. */
  readonly isWhole: () => boolean;
}

export class TrialDisks {
  /** Where they are, once they are taken, by their names in QEMU's arguments. */
  readonly places: ReadonlyMap<string, NbdPlace>;
  readonly #options: TrialDisksOptions;
  readonly #images: Images;

  /** @throws HypervisorError WRONG_STATE if there is nothing to be tried */
  constructor(options: TrialDisksOptions) {
    this.#options = options;
    const images = options.images();
    if (images === null) throw notNow();
    this.#images = images;
    const { socket } = images;
    const placed = options.local.map(
      ({ name }, index) => [name, { socket, name: trialExport(index) }] as const,
    );
    this.places = new Map(placed);
  }

  /** They are as of this call. @throws HypervisorError; the images are none the worse for it */
  take(): Promise<void> {
    const { order, images, isWhole } = this.#options;
    return order.do(async () => {
      if (images() !== this.#images || !isWhole()) throw notNow();
      await this.#images.beginTrial();
    });
  }

  /** They were what was taken, and are still. @throws HypervisorError */
  confirm(): Promise<void> {
    return this.#options.order.do(() => this.#images.confirmTrial());
  }

  /** Whoever has used them has ended. */
  end(): Promise<void> {
    return this.#options.order.do(() => this.#images.endTrial());
  }
}

function notNow(): HypervisorError {
  return new HypervisorError('WRONG_STATE', 'the disks of the standby are as of no checkpoint now');
}
