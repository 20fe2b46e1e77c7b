// Taking a domain's dirty log and giving it back: the same for a saver, and for a COLO secondary that logs itself.

import { HypervisorError, type SourceDomain } from './port.js';

/** The part of the port that is the dirty log. */
export type DirtyLog = Pick<SourceDomain, 'enableLogDirty' | 'cleanLogDirty' | 'disableLogDirty'>;

/** Enables the log, empty. Somebody else may be logging (video memory): it is taken away from them once. */
export async function takeDirtyLog(domain: DirtyLog): Promise<void> {
  try {
    await domain.enableLogDirty();
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.code !== 'LOG_DIRTY') throw error;
    await domain.disableLogDirty();
    await domain.enableLogDirty();
  }
}

/** Turns it off. A domain that is gone has no dirty log to turn off. */
export async function endDirtyLog(domain: DirtyLog): Promise<void> {
  try {
    await domain.disableLogDirty();
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.code !== 'DOMAIN_GONE') throw error;
  }
}
