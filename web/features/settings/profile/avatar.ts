/** A person's picture: made small and square in the browser, kept in the project's storage. */
import { ApiError } from "@/lib/api/errors";
import { sentences } from "../sentences";
import { getSupabase } from "./storage";

const BUCKET = "avatars";
const SIDE = 256;
const QUALITY = 0.88;
const LARGEST_FILE_MIB = 25;

/** The part of a picture that becomes the avatar: the largest square in its middle. */
export function middleSquare(width: number, height: number): { x: number; y: number; side: number } {
  const side = Math.min(width, height);
  return { x: Math.floor((width - side) / 2), y: Math.floor((height - side) / 2), side };
}

/** Makes an avatar of a picture's file. Throws an Error with a sentence for people. */
export async function squarePicture(file: Blob): Promise<Blob> {
  if (file.size > LARGEST_FILE_MIB * 1024 * 1024) throw new Error(sentences.picture.tooLarge(LARGEST_FILE_MIB));
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(sentences.picture.unreadable);
  });
  try {
    const { x, y, side } = middleSquare(picture.width, picture.height);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    if (!context) throw new Error(sentences.picture.cannotDraw);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, x, y, side, side, 0, 0, SIDE, SIDE);
    const webp = await toBlob(canvas, "image/webp");
    // Browsers that cannot write WebP answer with PNG, which is large for photographs.
    return webp.type === "image/webp" ? webp : await toBlob(canvas, "image/jpeg");
  } finally {
    picture.close();
  }
}

/** Stores an avatar and returns its public address. Throws ApiError. */
export async function uploadAvatar(userId: string, picture: Blob): Promise<string> {
  const supabase = await getSupabase();
  const bucket = supabase.storage.from(BUCKET);
  const ending = picture.type === "image/webp" ? "webp" : "jpg";
  // A new name each time: the address may be kept by caches for good.
  const path = `${userId}/${crypto.randomUUID()}.${ending}`;
  const { error } = await bucket.upload(path, picture, { contentType: picture.type, cacheControl: "31536000" });
  if (error) throw storageError(error);
  return bucket.getPublicUrl(path).data.publicUrl;
}

/** Removes a stored avatar. A failure leaves an unused file behind, which harms nobody. */
export async function removeStored(userId: string, address: string): Promise<void> {
  const path = storedPath(userId, address);
  if (!path) return;
  const supabase = await getSupabase();
  await supabase.storage.from(BUCKET).remove([path]);
}

/** The path within the bucket of one of the person's own avatars; null for pictures of elsewhere. */
export function storedPath(userId: string, address: string): string | null {
  const marker = `/storage/v1/object/public/${BUCKET}/`;
  const start = address.indexOf(marker);
  if (start < 0) return null;
  const path = address.slice(start + marker.length).split("?")[0] ?? "";
  return path.startsWith(`${userId}/`) ? path : null;
}

function toBlob(canvas: HTMLCanvasElement, type: string): Promise<Blob> {
  return new Promise((resolve, reject) => {
    const take = (blob: Blob | null) => (blob ? resolve(blob) : reject(new Error(sentences.picture.cannotStore)));
    canvas.toBlob(take, type, QUALITY);
  });
}

function storageError(error: Error & { status?: number }): ApiError {
  if (!error.status) return ApiError.network(error);
  const fields = { code: error.status, status: "UNKNOWN", reason: "STORAGE" };
  const message = error.status === 404 ? sentences.picture.noStorage : sentences.picture.storageFailed;
  return new ApiError(message, fields, { cause: error });
}
