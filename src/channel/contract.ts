// One link between two hosts for one domain, as the two see it. The primary listens, the secondary dials in;
// each domain has its own WebSocket (subprotocol romulus.v1), many domains share the primary's one port.
//
//   secondary                                   primary
//   HTTP upgrade                    ◀────────▶  who is there: TLS (identity.ts) or a token (token.ts)
//   hello {domain, version, …}      ─────────▶  offer found? versions fit? nobody else linked?
//                                   ◀─────────  welcome {streamUuid, heartbeat, …}   or  error {code} + close
//                                   ◀─────────  stream pieces (kind 2) …
//                                   ◀─────────  checkpoint {epoch, bytes, digest, outputBytes, end, trial, handOver}
//   ack {epoch}                     ─────────▶
//                                   ◀─────────  handed-over {epoch}, when all that was said up to there has been let out
//   heartbeat                       ◀────────▶  heartbeat
//   bye {reason}                    ◀────────▶  bye {reason}

import type { Observable } from 'rxjs';
import { RomulusError } from '../errors.js';
import type { Inventory } from '../hypervisor/inventory.js';
import type { DiskPoint } from '../hypervisor/port-disks.js';
import type { RecordSource, StreamSink } from '../stream/flow.js';

export const SUBPROTOCOL = 'romulus.v1';
export const PROTOCOL_VERSION = 6;

export type ChannelErrorCode =
  | 'REFUSED' // nobody listens there (ECONNREFUSED): the host is up, the process is not
  | 'UNREACHABLE' // no connection within the time, or a network error
  | 'BAD_SUBPROTOCOL' // the other side does not speak romulus.v1
  | 'PROTOCOL_VERSION' // another version of the control messages
  | 'UNKNOWN_DOMAIN' // the primary does not offer this domain
  | 'DOMAIN_MISMATCH' // the standby does not fit the domain (hypervisor, memory size, machine, devices, …): message and facts say what
  | 'ALREADY_LINKED' // the domain has a secondary already
  | 'HANDSHAKE_TIMEOUT'
  | 'BAD_MESSAGE' // a message that is no message of this protocol, or one out of turn
  | 'MESSAGE_TOO_LARGE'
  | 'DIGEST_MISMATCH' // the checkpoint that arrived is not the one that was sent
  | 'BUFFER_LIMIT' // a checkpoint larger than the secondary may buffer
  | 'HEARTBEAT_TIMEOUT' // closed by us: nothing heard for too long
  | 'ACKNOWLEDGE_TIMEOUT' // a checkpoint was not acknowledged in time
  | 'LINK_CLOSED' // the connection ended without a bye
  | 'TLS' // the TLS handshake or a certificate failed: somebody lives there, whoever it is
  | 'NAME_REFUSED' // a good certificate, of a host that is not allowed to be this
  | 'NOT_AUTHENTICATED' // plaintext, and the other side does not know our token
  | 'TOKEN_MISMATCH' // it is our primary, by its certificate or by the token of the last link, and has another token now
  | 'PLAINTEXT_REFUSED' // plaintext to an address that is not loopback, and not asked for
  | 'LISTEN_FAILED' // the replication port cannot be listened on: in use, not permitted, no such address
  | 'FENCED' // the other side has taken over
  | 'STANDBY_LOST' // the secondary's domain ended by itself: what it held is lost, it is filled anew
  | 'STATE_REFUSED' // the secondary's hypervisor does not take a checkpoint: it could not be taken over to
  | 'INTERNAL';

export class ChannelError extends RomulusError<ChannelErrorCode> {}

/** How far both sides have come together: an epoch that one has sent and the other has whole. */
export interface SharedPoint {
  readonly streamUuid: string;
  readonly epoch: number;
  /** Over all that the epoch's memory was made of: see chained() in link/digest.ts. */
  readonly digest: bigint;
}

/** What the secondary says of itself in its hello. */
export interface Hello {
  readonly domain: string;
  readonly protocolVersion: number;
  /** Romulus' own version, for the log. */
  readonly software: string;
  /** The name of the secondary's host, as the register knows it. */
  readonly host: string;
  readonly hypervisor: string;
  /** DomainType. */
  readonly domainType: number;
  readonly p2mSize: number;
  /** What else of the domain must be the same on the primary; empty where the hypervisor names nothing. */
  readonly inventory: Inventory;
  /** The stream and epoch that the standby holds whole, if it holds one. */
  readonly streamUuid: string | null;
  readonly epoch: number | null;
  /** By which pairing it may be taken over: the welcome's. Null with streamUuid. */
  readonly pairing: string | null;
  /**
   * What the standby's domain equals, whether or not it may be taken over: a stream can go on from there. Null: nothing
   * that anybody could go on from.
   */
  readonly shared: SharedPoint | null;
  /** What its disks are as of, even if all is lost that it has in memory. Null: that is not known, or it has none. */
  readonly images: DiskPoint | null;
  /** Its disks (their ids) that nothing was ever written to: all zeroes. */
  readonly blankDisks: readonly string[];
}

/** What the primary answers. */
export interface Welcome {
  readonly protocolVersion: number;
  readonly software: string;
  /** The name of the primary's host. */
  readonly host: string;
  readonly streamUuid: string;
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly windowEpochs: number;
  /**
   * True if nothing that the domain said since the epoch that the standby holds has been let out: then that epoch
   * stays a valid point to fail over to until the first checkpoint of the new stream is committed.
   */
  readonly continuous: boolean;
  /** The stream begins with what has changed since the hello's `shared`, not with all memory. */
  readonly resumes: boolean;
  /** By what the register knows who may take over: the UUID of the first of the streams that are continuous. */
  readonly pairing: string;
}

export type ByeReason =
  | 'domain-ended' // the domain shut down by itself: do not take over
  | 'shutdown'; // this side's agent stops

export interface CheckpointBoundary {
  readonly epoch: number;
  /** Octets of the stream since the last boundary. */
  readonly bytes: number;
  /** xxh3-64 of those. */
  readonly digest: bigint;
  readonly outputBytes: number;
  /** The END record came with it: the domain has ended by itself. */
  readonly end: boolean;
  /** It is to be tried whether the domain can be started from it: it is about to be handed over. */
  readonly trial: boolean;
  /** It is the last: the domain stands still on the primary. It is to be taken over from here, once handed-over comes. */
  readonly handOver: boolean;
}

export type LinkEvent =
  | { readonly kind: 'acknowledged'; readonly epoch: number }
  /** Of the secondary's end: the primary has let out all that it ever will, up to the epoch at which it stands still. */
  | { readonly kind: 'handed-over'; readonly epoch: number }
  /** Of the primary's end: the secondary's disks are as of this point, or a later one, whatever becomes of its host. */
  | { readonly kind: 'durable'; readonly point: DiskPoint }
  /** Any message from the other side: it lives. At most one event per heartbeat interval and message burst. */
  | { readonly kind: 'heard' }
  | { readonly kind: 'bye'; readonly reason: ByeReason }
  /** Final; the Observable completes after it. */
  | { readonly kind: 'lost'; readonly error: ChannelError };

/** Chunks (disk/dirty-map.ts) of one of the domain's disks, which is told by its index. */
export interface ChunkRange {
  readonly disk: number;
  readonly first: number;
  /** 1 to SUMS_MAX. */
  readonly count: number;
}

/** Chunks whose sums are asked for at once. */
export const SUMS_MAX = 2_048;

interface Link {
  /** Hot, replays a final event to late subscribers. */
  readonly events$: Observable<LinkEvent>;
  readonly peer: string;
  /**
   * Says goodbye and closes; resolves when the connection is closed (bounded by a timeout). True: the other side has
   * closed it in answer, so it has read the goodbye (or was saying its own). False: it may never have.
   */
  bye(reason: ByeReason): Promise<boolean>;
  /** Closes at once, telling the other side the code if it can. */
  destroy(error: ChannelError): void;
}

/** The primary's end. */
export interface PrimaryLink extends Link {
  readonly hello: Hello;
  readonly streamUuid: string;
  /** As the welcome says. */
  readonly pairing: string;
  /** As the welcome says. */
  readonly resumes: boolean;
  /** Of an epoch whose boundary was written and which is not acknowledged, xxh3-64. @throws ChannelError INTERNAL if it is none */
  digestOf(epoch: number): bigint;
  /** Digest and framing are the link's business; what the next boundary says beside them is told with the next two. */
  readonly sink: StreamSink;
  setOutputBytes(epoch: number, outputBytes: number): void;
  /** It is to be tried whether the domain can be started from this epoch. */
  setTrial(epoch: number): void;
  /** The domain is handed over behind this epoch. */
  setHandOver(epoch: number): void;
  /** … which is acknowledged, and nothing else will be let out. */
  handedOver(epoch: number): void;
  /**
   * The sums of chunks as the secondary has them, SUM_BYTES (disk/sums.ts) each. One question at a time.
   * @throws ChannelError that of the lost link; RangeError
   */
  sums(range: ChunkRange): Promise<Uint8Array>;
  /** Resolves when the connection is closed, soon after the link is lost: nothing that was written is read any more. */
  readonly closed: Promise<void>;
  /** Octets handed to the socket and not yet taken by the kernel. */
  readonly bufferedBytes: number;
}

/** The secondary's end. */
export interface SecondaryLink extends Link {
  readonly welcome: Welcome;
  /** read() gives null once the link is lost and all whole records that arrived are consumed. */
  readonly source: RecordSource;
  /**
   * The boundary that follows the records read so far: resolves when its message is here and the digest is right.
   * @throws ChannelError DIGEST_MISMATCH, BAD_MESSAGE, or that of the lost link
   */
  boundary(): Promise<CheckpointBoundary>;
  /** Tells the primary that the epoch is safe here. Resolves when it is with the kernel. */
  acknowledge(epoch: number): Promise<void>;
  /** Whose sums the primary waits for, the present question first; null: for none. Completes when the link is lost. */
  readonly sumsWanted$: Observable<ChunkRange | null>;
  answerSums(range: ChunkRange, sums: Uint8Array): void;
  /** Its images are as of this point, whatever becomes of this host. */
  durable(point: DiskPoint): void;
  /** Octets received and not yet read by the restorer. */
  readonly bufferedBytes: number;
}

/** A domain that the primary offers for protection. */
export interface DomainOffer {
  readonly domain: string;
  /** Under TLS: its secondary's certificate must have one of these names (host names, addresses). Left out: nobody's will do. */
  readonly secondaryNames?: readonly string[] | undefined;
  /** Decides over a hello that is well-formed and of our version: the welcome's fields (heartbeat: else the listener's), or a ChannelError thrown. */
  welcome(
    hello: Hello,
  ): Pick<Welcome, 'host' | 'streamUuid' | 'continuous' | 'resumes' | 'pairing' | 'windowEpochs'> &
    Partial<Pick<Welcome, 'heartbeatIntervalMs' | 'heartbeatTimeoutMs'>>;
  /** A secondary is linked. Called at most once at a time: the next one only after the last link was lost. */
  linked(link: PrimaryLink): void;
}
