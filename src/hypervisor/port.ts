// The port: what a hypervisor must be able to do for a domain to be saved, replicated and restored. It is what libxc
// calls the xc_interface, cut to what the saver and the restorer use, and made asynchronous: one call is about a
// batch of pages or a whole context, never about one page. Each hypervisor has a folder beside this file.
//
// Frame numbers are 32-bit (INVALID_FRAME = none); pages are PAGE_SIZE octets. Arrays given to a call belong to the
// caller again once its promise is settled. Whatever fails, fails with a HypervisorError.

import type { Observable } from 'rxjs';
import { RomulusError, asError, type Facts } from '../errors.js';
import type { OutputGate } from '../output/gate.js';
import type { DomainType } from '../stream/format.js';
import type { Bitmap } from './bitmap.js';
import type { Inventory } from './inventory.js';
import type { DiskSource, DiskTarget } from './port-disks.js';
import type { PvSource, PvTarget } from './port-pv.js';

export type HypervisorErrorCode =
  | 'DOMAIN_GONE' // the domain has shut down, crashed or was destroyed: there is nothing left to act on
  | 'WRONG_STATE' // the call does not fit the domain's state (suspend of a suspended domain, …)
  | 'FRAME_OUT_OF_RANGE' // a frame number that the domain does not have
  | 'NOT_POPULATED' // a frame that was never populated
  | 'OUT_OF_MEMORY' // populate: no memory left for the domain
  | 'LOG_DIRTY' // log-dirty cannot be enabled, or is not enabled
  | 'BAD_CONTEXT' // a context, parameter or policy that the hypervisor does not accept
  | 'UNSUPPORTED' // this hypervisor cannot do that
  | 'BAD_CONFIGURATION' // the domain cannot be created as configured
  | 'MACHINE_CHANGED' // the domain is another machine than it was: what it says of its inventory has changed
  | 'HUNG' // the hypervisor does not answer within the time it is given
  | 'FAILED'; // the hypervisor itself failed; the cause is attached

export class HypervisorError extends RomulusError<HypervisorErrorCode> {}

/** FAILED. `cause`: what was caught, if anything was. */
export function failed(message: string, facts: Facts = {}, cause?: unknown): HypervisorError {
  return withCause('FAILED', message, facts, cause);
}

/** BAD_CONFIGURATION; `facts` name the `key` and its `value` where it is one of the configuration. */
export function badConfiguration(message: string, facts: Facts, cause?: unknown): HypervisorError {
  return withCause('BAD_CONFIGURATION', message, facts, cause);
}

/** UNSUPPORTED. */
export function unsupported(message: string, facts: Facts = {}, cause?: unknown): HypervisorError {
  return withCause('UNSUPPORTED', message, facts, cause);
}

function withCause(
  code: HypervisorErrorCode,
  message: string,
  facts: Facts,
  cause: unknown,
): HypervisorError {
  return new HypervisorError(code, message, facts, cause === undefined ? {} : { cause: asError(cause) });
}

/** `suspended` is libxc's SHUTDOWN_suspend: stopped by us, consistent, may be resumed. */
export type DomainState = 'created' | 'running' | 'suspended' | 'shutdown' | 'crashed' | 'destroyed';

export function hasEnded(state: DomainState): boolean {
  return state === 'shutdown' || state === 'crashed' || state === 'destroyed';
}

export interface DomainInfo {
  readonly name: string;
  readonly type: DomainType;
  /**
   * Size of the guest's pseudo-physical address space in pages: one more than the highest pfn. Of a PV domain that is
   * being restored: the most that it may become, whatever the stream says.
   */
  readonly p2mSize: number;
  readonly state: DomainState;
  /** Which hypervisor runs it ("embedded", "memory", "qemu", "xen"), and what the domain header shall say. */
  readonly hypervisor: string;
  readonly versionMajor: number;
  readonly versionMinor: number;
  /** What else must be the same on both sides. Not there: nothing. Taken when the domain was made: asking costs nothing. */
  readonly inventory?: Inventory;
}

/** What a domain does by itself. `shutdown` and `crashed` are final. */
export type DomainEvent =
  { readonly kind: 'shutdown' } | { readonly kind: 'crashed'; readonly reason: string };

export interface DirtyStats {
  /** Pages dirtied since the last clean. */
  readonly dirtyCount: number;
  readonly faultCount: number;
}

export interface TscInfo {
  readonly mode: number;
  readonly khz: number;
  readonly nsec: bigint;
  readonly incarnation: number;
}

export interface HvmParam {
  readonly index: bigint;
  readonly value: bigint;
}

/** Serialised CPU policies (arrays of xen_cpuid_leaf_t and xen_msr_entry_t); empty where a hypervisor has none. */
export interface CpuPolicy {
  readonly cpuid: Uint8Array;
  readonly msrs: Uint8Array;
}

export interface Domain {
  info(): Promise<DomainInfo>;
  /** What its hypervisor chose by itself, and why: sentences for people, who are told once. */
  readonly notes?: readonly string[];
  /** The same, of what turns up later: also what it got over by itself. */
  readonly warnings$?: Observable<string>;
  /**
   * By what the domain was stopped, if not by us (the hypervisor's word: "paused", "io-error"); null: by nobody. The
   * present state first. Such a domain stands still until somebody lets it run; resume() does not.
   */
  readonly stoppedBy$?: Observable<string | null>;
  /** What the domain says to the world, in order. All that it said before a suspend is out when suspend() resolves. */
  readonly output$: Observable<Uint8Array>;
  /** Completes when the domain is destroyed. Late subscribers get a final event that has happened already. */
  readonly events$: Observable<DomainEvent>;
  /** What the world says to the domain (serial input). */
  input(bytes: Uint8Array): Promise<void>;
  /** Ends the domain and frees all that it holds; safe to call twice and in any state. */
  destroy(): Promise<void>;
}

/** The domain is another machine than it was: what it is now, and a sentence that says what is different. */
export interface MachineChange {
  readonly inventory: Inventory;
  readonly message: string;
}

/**
 * What is known of the other host when a domain is left that goes on without us. free: nobody else runs the domain, or
 * will. held: somebody else may (one that must not run on both hosts then is stopped). stopped: somebody else does.
 */
export type Leave = 'free' | 'held' | 'stopped';

/** A domain that is being saved. */
export interface SourceDomain extends Domain {
  /** What only a PV domain needs; not there: this hypervisor runs none, or the domain is none. */
  readonly pv?: PvSource;
  /** Not there: no disk of it is replicated. */
  readonly disks?: DiskSource;
  /**
   * What leaves the domain by other ways than output$, a network interface for instance, and is held back by its
   * hypervisor; holding from the start. They are sealed before the domain is suspended. Counters are 0 where
   * they are not known.
   */
  readonly gates?: readonly OutputGate[];
  /** It was found with its gates holding: who held them is gone without a goodbye, and its secondary may run the domain. */
  readonly orphaned?: boolean;
  /** Whenever it has become another machine, by somebody else's hand. */
  readonly machineChanges$?: Observable<MachineChange>;
  /**
   * In the place of destroy(), for a domain that is not ours to end; not there: it ends with us. free: it goes on, its
   * gates opened for good. held: it goes on, its gates closed for good. stopped: it is stopped, its gates closed for
   * good. Resolves with what is left for somebody to do by hand, a sentence each.
   */
  leave?(how: Leave): Promise<readonly string[]>;
  /**
   * Another host may take the domain over, or no more; in force when it resolves. Of a domain that does not end with us
   * and must not run on both hosts (its disks are shared): should we die meanwhile, it is stopped. Not there: there is
   * nothing to be done.
   */
  expose?(on: boolean): Promise<void>;
  /** Lets a domain that was created but not started run. */
  start(): Promise<void>;
  /** The domain runs and is about to be suspended: whatever makes the pause shorter. */
  prepareSuspend?(): Promise<void>;
  /** Stops the domain at a consistent point. @throws HypervisorError DOMAIN_GONE if it has ended */
  suspend(): Promise<void>;
  /**
   * Asked of a suspended domain when all is captured, before it is resumed: false if somebody else let it run since
   * suspend(), so that what was captured is not of one moment. It runs then, and can be suspended again.
   */
  stoodStill?(): Promise<boolean>;
  /** Lets a suspended domain go on (XEN_DOMCTL_resumedomain, fast). */
  resume(): Promise<void>;
  /**
   * Asked after resume(), before what was captured is sent.
   * @throws HypervisorError MACHINE_CHANGED if it is not of the machine that info() tells of
   */
  confirmMachine?(): Promise<void>;

  enableLogDirty(): Promise<void>;
  /**
   * In the place of enableLogDirty(), where the log is on still: what the domain hands over once a stream is to be handed
   * over again. Not there: nothing is.
   */
  beginStream?(): Promise<void>;
  /** XEN_DOMCTL_SHADOW_OP_CLEAN: overwrites `into` (of p2mSize bits) with the pages dirtied since the last clean. */
  cleanLogDirty(into: Bitmap): Promise<DirtyStats>;
  /** XEN_DOMCTL_SHADOW_OP_PEEK: the same without forgetting them. */
  peekLogDirty(into: Bitmap): Promise<DirtyStats>;
  disableLogDirty(): Promise<void>;

  /** Page type (PageType, 4 bits) of each of the first `count` gfns, into `types`. INVALID_FRAME gives XTAB. */
  pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void>;
  /**
   * Copies the first `count` gfns, which all have data, into `slab` from `offset` on, page after page in the order of
   * `gfns`. The slab lies in shared memory, so that a domain in a worker fills it without another copy.
   */
  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void>;

  /**
   * vCPU and device state without RAM, as one blob (XEN_DOMCTL_gethvmcontext). The domain must be suspended. Empty only
   * where emulatorContext() stands for it.
   */
  hvmContext(): Promise<Uint8Array>;
  hvmParams(): Promise<readonly HvmParam[]>;
  tscInfo(): Promise<TscInfo>;
  cpuPolicy(): Promise<CpuPolicy>;

  /**
   * The state of the domain's device model (upstream QEMU), in a blob of its own. The domain must be suspended. Not
   * there: the domain has none, or hvmContext() covers it. Where it is there, it may cover the vCPUs too, and
   * hvmContext() be empty.
   */
  emulatorContext?(): Promise<Uint8Array>;
}

/** A domain that is being restored: created empty, filled, started at takeover, and then a source like any other. */
export interface TargetDomain extends Domain {
  /** As in SourceDomain. */
  readonly pv?: PvTarget;
  readonly disks?: DiskTarget;
  /**
   * Gives memory to the first `count` pfns (XENMEM_populate_physmap_exact); the gfn of pfns[i] comes back in gfns[i].
   * For auto-translated guests they are equal.
   */
  populate(pfns: Uint32Array, count: number, gfns: Uint32Array): Promise<void>;
  /** Writes `count` pages, which lie one after another in `data`, to gfns[0 … count - 1]. */
  writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void>;
  /** Verify mode: the indices (into gfns) of the pages that differ from what the domain holds. */
  comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]>;
  /** Fills a page with zeroes (xc_clear_domain_page). */
  clearPage(gfn: number): Promise<void>;
  /** As in SourceDomain, of what was written, before start(). */
  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void>;

  setHvmContext(context: Uint8Array): Promise<void>;
  setHvmParam(param: HvmParam): Promise<void>;
  setTscInfo(info: TscInfo): Promise<void>;
  setCpuPolicy(policy: CpuPolicy): Promise<void>;
  /** What emulatorContext() gave; after everything else. Not there: the domain has no device model to take it. */
  setEmulatorContext?(context: Uint8Array): Promise<void>;

  /**
   * What is written from here on belongs to a checkpoint that the domain will be started from, or not at all: nothing is
   * kept for a way back. Not there: nothing ever is.
   */
  beginLast?(): void;
  /**
   * A checkpoint is complete in the domain, and this is its emulatorContext(). Not there: nothing is to be done. The
   * domain may find out whether it could be started. `isTrial`: it does find out, and what a start needs is done as far as
   * it can be.
   * @throws HypervisorError BAD_CONTEXT if it could not: it is then as of `checkpointsBack` checkpoints before, if it
   * has ever had one
   */
  checkpoint?(emulatorContext: Uint8Array, isTrial?: boolean): Promise<void>;
  /** How far the domain had to go back, when checkpoint() failed, or at its start. Not there: never. */
  readonly checkpointsBack?: number;
  /**
   * What another domain's setEmulatorContext() needs to be as this one is since its last checkpoint(): that may have been
   * given only what has changed. Not there: it was given all.
   * @throws HypervisorError WRONG_STATE if there is none
   */
  lastCheckpoint?(): Uint8Array;
  /**
   * Another domain like this one, to be filled while this one is held. What only one can have is this one's until the
   * other one's first checkpoint() or start(). Not there: they share nothing.
   */
  another?(): Promise<TargetDomain>;
  /**
   * A domain for a trial: made as this one was, with its parameters, TSC and CPU policy, and without memory and context.
   * The two share nothing, and nothing that it does is seen: what it sends by a network reaches nobody, what it writes
   * to a disk is dropped. Not there: this hypervisor makes none. `signal`: gives up.
   * @throws HypervisorError UNSUPPORTED for a domain that cannot be kept to itself, OUT_OF_MEMORY or FAILED
   */
  trial?(signal: AbortSignal): Promise<TrialDomain>;
  /**
   * Of one for a trial: its disks become what those of the domain that it was made like hold at this call, whatever is
   * written to those while it is under way. Not there: it has none.
   */
  takeDisks?(): Promise<void>;

  /** Lets the restored domain run. If it fails with another code than DOMAIN_GONE, it can be tried again. */
  start(): Promise<void>;
  /**
   * The domain that runs since start(), to be protected in its turn; each time the same. It is this domain: it ends when
   * this one does, destroy() of one is that of both, and what it says comes by both output$, an octet at the same moment
   * by either. Its gates pass, since nobody protects it; where a gate is to be tested, its first hold() does that.
   * @throws HypervisorError WRONG_STATE before start(); DOMAIN_GONE if it ended before it ran
   */
  source(): SourceDomain;
  /** As in SourceDomain, once it runs. */
  suspend(): Promise<void>;
  resume(): Promise<void>;
  /** Tells the network where the running domain is now. If that fails, the network finds out by itself, later. */
  announce?(): Promise<void>;
}

/** A domain that is started to see whether it lives, and ended. */
export interface TrialDomain extends TargetDomain {
  /** Since its start: the guest was reset, and by what. Not there: that is not known. */
  readonly resets$?: Observable<string>;
}
