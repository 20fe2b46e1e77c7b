// The disks of a trial: what the standby's images held at one moment, elsewhere (moment.ts). They end with the images that
// they are of: whoever closes those has better things to do. What goes wrong with them is the trial's, and not the standby's.

import type { InOrder } from '../../../../flow/in-order.js';
import { HypervisorError } from '../../../port.js';
import type { LocalDisk } from '../drives.js';
import type { NbdPlace } from '../trial-drives.js';
import type { Images } from './images.js';
import { MomentFiles, trialExport } from './moment.js';

export interface TrialDisksOptions {
  readonly local: readonly LocalDisk[];
  /** In which what is done to the images is done. */
  readonly order: InOrder;
  /** The images; null: those of no checkpoint, or none. */
  readonly images: () => Images | null;
  /** They are as of a checkpoint now. */
  readonly isWhole: () => boolean;
  /** Opens the images anew. In the order. */
  readonly renew: () => Promise<void>;
}

export class TrialDisks {
  /** Where they are, once they are taken, by their names in QEMU's arguments. */
  readonly places: ReadonlyMap<string, NbdPlace>;
  readonly #options: TrialDisksOptions;
  readonly #images: Images;
  readonly #files: MomentFiles;
  #isEnded = false;

  /** @throws HypervisorError WRONG_STATE if there is nothing to be tried; FAILED without room for it */
  static async make(options: TrialDisksOptions): Promise<TrialDisks> {
    const images = options.images();
    if (images === null) throw notNow();
    return new TrialDisks(options, images, await MomentFiles.make(images.bytes));
  }

  private constructor(options: TrialDisksOptions, images: Images, files: MomentFiles) {
    this.#options = options;
    this.#images = images;
    this.#files = files;
    const { socket } = images;
    const placed = options.local.map(
      ({ name }, index) => [name, { socket, name: trialExport(index) }] as const,
    );
    this.places = new Map(placed);
  }

  /** They are as of this call. @throws HypervisorError, as QmpClient.execute(); the images are none the worse for it */
  take(): Promise<void> {
    return this.#inTurn(async () => {
      if (!this.#options.isWhole()) throw notNow();
      try {
        await this.#images.beginTrial(this.#files);
      } catch (error) {
        await this.#end();
        throw error;
      } finally {
        await this.#files.remove();
      }
    });
  }

  /** They were what was taken, and are still. @throws HypervisorError, as QmpClient.execute() */
  confirm(): Promise<void> {
    return this.#inTurn(() => this.#images.confirmTrial());
  }

  /** Whoever has used them has ended. Nothing is taken any more. */
  end(): Promise<void> {
    this.#isEnded = true;
    return this.#options.order.do(async () => {
      await this.#files.remove();
      await this.#end();
    });
  }

  /** Where what is below the images cannot be made what it was, they are opened anew. */
  async #end(): Promise<void> {
    const { images, renew } = this.#options;
    try {
      await this.#images.endTrial();
    } catch {
      // Where that fails the images are, and say so to whoever writes to them next.
      if (images() === this.#images) await renew().catch(() => undefined);
    }
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const { order, images } = this.#options;
    return order.do(async () => {
      if (this.#isEnded || images() !== this.#images) throw notNow();
      await work();
    });
  }
}

function notNow(): HypervisorError {
  return new HypervisorError('WRONG_STATE', 'the disks of the standby are as of no checkpoint now');
}
